"""Where a workflow's products are, as a build sees it: in the session's cache, and in the runner's `products`.

The configuration says what a product's key is, `products` whether they hold one of that key. Both may be anybody's: they are
asked by the methods that `workflow` names. A `WorkflowProducts` tells more: the digest of what it holds (so a product that came
out as before doesn't make its users run), what it was made from, and what can't be kept.

What can't be saved or loaded is said once, and stays in memory or is made again.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from woflo import _exceptions, events
from woflo._build import Found, Product
from woflo._code import code_of
from woflo._fingerprint import Undigestible, cache_key, digest
from woflo._identity import WorkflowConfig, fields_of, identity_of, methods_of, parts_of
from woflo._products import WorkflowProducts
from woflo._rebuild import Decision, Facts, Recipe, exists, traces
from woflo._shelf import warn_of_loose
from woflo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from woflo._build import Step
    from woflo._code import Code
    from woflo._steps import WorkflowStep
    from woflo.store import Trace

__all__ = ["ProductShelf"]

_ANY = "exists"  # in the place of keys and digests where nothing but existence counts
_NO_RECIPE = Recipe("", "", {}, {}, {})
_FIRST_RUN = Decision(False, "first run")
_SHOWN = 16  # hex digits of a digest in a trace
_MOST_STATES = 100_000  # digests that are remembered

# What a step's code was before steps ran, by its digest afterwards: one that appends to a list of the module's, to count its
# calls, is the same step in the next session, in this process too. What the user changes between builds is an edit.
_before: dict[str, Code] = {}


class ProductShelf:
    """The shelf of one runner.

    Attributes:
        cache: product → value, of this session; the user may add and remove.
        seconds: step → how long it took in this session.
    """

    def __init__(self, tell: Callable[[str, str], object]) -> None:
        self.cache: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self._tell = tell
        self._known: dict[str, tuple[Any, str, str | None]] = {}  # of what is cached: value, digest, whose config
        self._said: set[str] = set()
        self._session = uuid4().hex
        self.identity: str | None = None
        self.use(None, None)

    def use(self, config: Any, products: Any) -> None:
        """Look at the configuration and the products anew, for what is asked next.

        What was made under another configuration is dropped from the cache.
        """
        before = self.identity
        self._codes: dict[WorkflowStep, Code | None] = {}
        self._methods: dict[str, str] | None = None  # the code of the configuration's own methods, once it is asked for
        self._config = config
        self.products = products
        self._own = products if isinstance(products, WorkflowProducts) else None
        key = getattr(config, "cache_key", None)
        self._from: Callable[[dict[str, str]], Sequence[str] | None]
        if key is None or getattr(type(config), "cache_key", None) is WorkflowConfig.cache_key:
            self._identify: Callable[[], str | None] = lambda: identity_of(config)[0]
            self.identity, self._options = identity_of(config)
            self._from = partial(parts_of, self.identity)
        else:  # it may count what it doesn't name
            self._from = lambda requires: None if (found := key(requires=requires)) is None else (str(found),)
            self._identify = lambda: next(iter(self._from({}) or ()), None)
            self.identity = self._identify()
            self._options = {} if self.identity is None else {"config": self.identity}
        if self.identity != before or len(self._known) > len(self.cache):
            self._forget()

    def _forget(self) -> None:
        """Drop what was made under another configuration, and what is remembered of values that the user has taken away."""
        for name, (value, _, identity) in list(self._known.items()):
            if self.cache.get(name, self) is not value:
                del self._known[name]
            elif identity not in {self.identity, _ANY}:
                del self._known[name], self.cache[name]

    @contextmanager
    def together(self) -> Iterator[None]:
        """The block of a build: many products are saved, and what its steps do to globals is no edit of theirs."""
        try:
            with nullcontext() if self._own is None else self._own.together():
                yield
        finally:
            self._note_state()

    def _note_state(self) -> None:
        """Have the code of steps count as it did before they ran, although they have changed what it refers to."""
        if len(_before) > _MOST_STATES:
            _before.clear()
        for step, code in self._codes.items():
            try:
                now = None if code is None else code_of(step.fn)
            except Undigestible:
                continue
            if code is not None and now is not None and now.digest != code.digest:
                _before[now.digest] = code

    # ------------------------------------------------------------------ as a build sees it

    def read(self, step: WorkflowStep) -> None:
        """Take the code of a step as it is now, before anything runs: what steps do to globals is no edit."""
        if self.products is not None and self.identity is not None and step not in self._codes:
            self._read(step)

    def _read(self, step: WorkflowStep) -> None:
        try:
            code = code_of(step.fn)
            if code.loose:
                warn_of_loose(step.name, code)
            self._codes[step] = _before.get(code.digest, code)
        except Undigestible as error:
            self._codes[step] = None
            self._say(f"code {step.name}", f"step {step.name} runs anew in each session: it has no digest ({error})")

    def recipe(self, step: WorkflowStep, digests: dict[str, str]) -> Recipe:
        """What a step's products follow from. An empty key: nothing is known of that, existence counts."""
        if self.products is None:
            return _NO_RECIPE
        parts = self._from(digests)
        if parts is None:
            return Recipe("", "", {}, {}, digests)
        if step not in self._codes:
            self._read(step)
        code = self._codes[step]
        if code is None:  # only this session knows what it does
            mark = cache_key("workflow step", self._session, *step.produces, "from", *parts)
            return Recipe(mark, "", {}, self._options, digests)
        digest, pieces = code.digest, code.parts
        if step.takes_config:
            if self._methods is None:
                self._methods = methods_of(self._config)
            if self._methods:
                digest = cache_key("with configuration", digest, *self._methods.values())
                pieces = {**pieces, **{name: one[:_SHOWN] for name, one in self._methods.items()}}
        mark = cache_key("workflow step", digest, *step.produces, "from", *parts)
        return Recipe(mark, digest, pieces, self._options, digests)

    def find(self, step: Step, recipe: Recipe) -> Found:
        seconds = self.seconds.get(step.name)
        if self.products is None:
            return Found(_FIRST_RUN, [Product(_ANY) for _ in step.produces], seconds)
        if recipe.key and not recipe.code:
            return Found(Decision(False, "volatile", "its code has no digest"), None, seconds)
        if self._own is not None and recipe.key:
            return self._find_recorded(self._own, step, recipe, seconds)
        found = []
        there = []
        for name in step.produces:
            key = _key_of(step, recipe, name)
            there.append(self.products.exists(name))
            kept = there[-1] and (not recipe.key or self.products.fresh(name, key))
            found.append(Product(key, load=self._loader(name) if kept else None))
        if all(product.kept for product in found):
            return Found(self._reused(recipe), found, seconds)
        stale = Decision(False, "option changed", "it was made under another key")
        return Found(stale if all(there) else _FIRST_RUN, found, seconds)

    def last(self, step: Step) -> tuple[bool, float | None]:
        """Whether a step is known to have run before, and how long it took."""
        seconds = self.seconds.get(step.name)
        if seconds is None and self._own is not None:
            trace = self._own._trace(step.produces[0])
            seconds = None if trace is None else trace.seconds
        return seconds is not None, seconds

    def _find_recorded(self, products: WorkflowProducts, step: Step, recipe: Recipe, seconds: float | None) -> Found:
        found: list[Product] = []
        last: Trace | None = None
        for name in step.produces:
            key = _key_of(step, recipe, name)
            trace = products._trace(name)
            if trace is None or products._key(trace) != key:
                reason = traces(recipe, Facts(None, trace or last, corrupt=products._damaged(name)))
                if trace is not None and reason.reason == "product missing":  # all that is recorded is the same
                    reason = Decision(False, "option changed", "the configuration gives it another key")
                return Found(reason, None, seconds if trace is None else trace.seconds)
            last = trace
            load = self._loader(name) if products._holds(trace, name) else None
            found.append(Product(trace.outputs.get(name) or key, load=load))
        seconds = last.seconds if last is not None else seconds
        if all(product.kept for product in found):
            return Found(self._reused(recipe), found, seconds)
        return Found(traces(recipe, Facts(last)), found, seconds)

    def _reused(self, recipe: Recipe) -> Decision:
        if recipe.key:
            return Decision(True, "up to date")
        self._say(
            "identity",
            "the workflow's configuration declares no _identity_fields: what is among the products is used because it is"
            " there, whatever it was made from",
        )
        return exists(recipe, Facts(there=True))

    def keep(self, step: Step, recipe: Recipe, values: Sequence[Any], seconds: float) -> list[Product]:
        self.seconds[step.name] = seconds
        found = []
        follows = self._still_follows(step)
        for name, value in zip(step.produces, values, strict=True):
            self.cache[name] = value
            mark = self._save(step, recipe, name, value, seconds) if follows else uuid4().hex
            self._known[name] = value, mark, self.identity
            found.append(Product(mark, value, self._loader(name)))
        for name in step.produces:
            self._tell("built", name)
        return found

    def restore(self, step: Step, name: str) -> bool:
        """Say that a step changed a product in place; forget the changed one, if it is there as it was made."""
        self._say(
            f"change {step.name} {name}",
            f"step {step.name}: {name!r}, which it was given, was changed in place while it ran; others get it as it was "
            "made, where it was saved: let the step work on a copy",
        )
        if self.products is None or not self._known.get(name, ("", ""))[1]:
            return False
        try:
            there = bool(self.products.exists(name))
        except Exception:
            there = False
        if there:
            self.cache.pop(name, None)
            self._known.pop(name, None)
        return there

    def _still_follows(self, step: Step) -> bool:
        """Whether what a step made follows from the configuration as it was looked at: a file may have changed meanwhile."""
        if self.products is None or self.identity is None or self._identify() == self.identity:
            return True
        self._say(
            f"identity {step.name}",
            f"the configuration changed, or a file that it names, while step {step.name} ran: what it made isn't kept",
        )
        return False

    def _save(self, step: Step, recipe: Recipe, name: str, value: Any, seconds: float) -> str:
        """Save a product, if that can be; its digest, empty if that is of no interest."""
        if self.products is None:
            return ""
        key = _key_of(step, recipe, name)
        requires = dict(recipe.inputs)
        silent = False
        try:
            if self._own is not None:
                before = self._own._trace(name)
                silent = before is not None and not before.kept  # it has been said
                facts = {"config": self._options, "requires": requires, "step": step.name, "seconds": seconds}
                facts |= {"code": recipe.code, "parts": dict(recipe.parts)}
                return self._own.save(name, value, cache_key=key if recipe.key else None, inputs=facts)
            if recipe.key:
                inputs = {"config": self._fields(), "requires": requires}
                self.products.save(name, value, cache_key=key, inputs=inputs)
            else:
                self.products.save(name, value)
        except Exception as error:
            if not silent:
                self._say(
                    f"save {name}",
                    f"the product {name!r} of step {step.name} can't be saved and stays in memory: {_text(error)}",
                )
        return key

    def _fields(self) -> dict[str, Any]:
        try:
            return fields_of(self._config) or {}
        except UsageError:  # somebody else's configuration means something else by it
            return {}

    # ------------------------------------------------------------------ what is there already

    def cached(self, name: str) -> Product:
        """A product that is in the cache."""
        value = self.cache[name]
        known = self._known.get(name)
        if known is None or known[0] is not value:
            known = value, "", _ANY  # the user has put it there
        if not known[1] and self.products is not None:
            known = value, self._digest(name, value), known[2]
        self._known[name] = known
        return Product(known[1], value)

    def external(self, name: str) -> Product:
        """A product that no step makes and that is among the products; loaded only if its digest isn't recorded."""
        if self._own is not None:
            trace = self._own._trace(name)
            if trace is not None:
                return Product(trace.outputs[name], load=lambda _: self.load_external(name))
        if self.identity is not None:
            self.load_external(name)
            return self.cached(name)
        return Product(_ANY, load=lambda _: self.load_external(name))

    def load_external(self, name: str) -> Any:
        """The value of a product that no step makes.

        Raises:
            UsageError: it is gone.
            Exception: what `products.load` raised.
        """
        if name in self.cache:
            return self.cache[name]
        try:
            value = self.products.load(name)
        except KeyError as error:
            raise UsageError(f"the product {name!r}, which no step makes, can't be had: {_text(error)}") from error
        except Exception as error:
            _exceptions.add_note(error, f"woflo: while loading the product {name!r}, which no step makes")
            raise
        self.cache[name] = value
        self._tell("loaded", name)
        return value

    def _loader(self, name: str) -> Callable[[str], Any]:
        return partial(self._load, name)

    def _load(self, name: str, mark: str) -> Any:
        """The value of a product that a step made, from the cache or the products; KeyError if it can't be had."""
        if name in self.cache:
            return self.cache[name]
        try:
            value = self.products.load(name)
        except Exception as error:
            if self._own is None or not isinstance(error, KeyError):  # a store has said what is wrong with its record
                self._say(f"load {name}", f"the product {name!r} can't be loaded and is made again: {_text(error)}")
            raise KeyError(name) from error
        self.cache[name] = value
        self._known[name] = value, mark, self.identity
        self._tell("loaded", name)
        return value

    def _digest(self, name: str, value: Any) -> str:
        try:
            return digest(value).hex()
        except Undigestible as error:
            self._say(
                f"digest {name}",
                f"the product {name!r} was made by no step and has no digest ({error}): what needs it is made anew in each"
                " session",
            )
            return uuid4().hex

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            events.warn(text)


def _key_of(step: Step, recipe: Recipe, name: str) -> str:
    """The key of a product of a step."""
    if not recipe.key:
        return _ANY
    return recipe.key if len(step.produces) == 1 else cache_key(recipe.key, name)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {_exceptions.safe_str(error)}"
