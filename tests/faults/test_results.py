"""What comes back: every exception, every size, and objects that misbehave on the way."""

from __future__ import annotations

from .rows import HERE, PROCESSES, RUNNERS, covers

EVIL = """
import dataclasses

class TwoArguments(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason

class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__(code)
        self.code = code

class NoArguments(Exception):
    def __init__(self):
        super().__init__("fixed text")

class FailingInit(Exception):
    made = 0
    def __init__(self, *arguments):
        type(self).made += 1
        if type(self).made > 1:
            raise RuntimeError("init of a copy")
        super().__init__(*arguments)

class FailingReduce(Exception):
    def __reduce__(self):
        raise RuntimeError("reduce")

class ExitingReduce(Exception):
    def __reduce__(self):
        raise SystemExit(9)

class FailingReduceEx(Exception):
    def __reduce_ex__(self, protocol):
        raise TypeError("reduce_ex")

class FailingStr(Exception):
    def __str__(self):
        raise RuntimeError("str")

class FailingRepr(Exception):
    def __repr__(self):
        raise RuntimeError("repr")

class FailingBoth(Exception):
    def __str__(self):
        raise RuntimeError("str")
    __repr__ = __str__

class ExitingStr(Exception):
    def __str__(self):
        raise SystemExit(9)

class StrOfWrongType(Exception):
    def __str__(self):
        return 5

class FailingSetState(Exception):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.extra = 1
    def __setstate__(self, state):
        raise RuntimeError("setstate")

class ExitingSetState(Exception):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.extra = 1
    def __setstate__(self, state):
        raise SystemExit(9)

class FailingSetStateInParentOnly(Exception):
    home = os.getpid()
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.extra = 1
    def __setstate__(self, state):
        if os.getpid() == self.home:
            raise RuntimeError("setstate")
        self.__dict__.update(state)

class LyingReduce(Exception):
    def __reduce__(self):
        return (str, ("no exception at all",))

class HugeMessage(Exception):
    pass

class Slotted(Exception):
    __slots__ = ("place",)

class NoDict(Exception):
    def __getstate__(self):
        raise RuntimeError("getstate")

class FailingNotes(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("notes")

class FailingHash(Exception):
    __hash__ = None
    def __eq__(self, other):
        raise RuntimeError("eq")

class FailingBool(Exception):
    def __bool__(self):
        raise RuntimeError("bool")
    __len__ = __bool__

class FailingGetattribute(Exception):
    def __getattr__(self, name):
        raise RuntimeError("getattr " + name)

class Multiple(KeyError, OSError):
    pass

class WithMetaclass(Exception, metaclass=type("Meta", (type,), {})):
    pass

class Outer:
    class Inner(Exception):
        pass

@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int

@dataclasses.dataclass
class Data(Exception):
    code: int
    text: str = "t"

def local():
    class Local(Exception):
        pass
    return Local("local")

def with_attribute(value):
    error = ValueError("attribute")
    error.extra = value
    return error

def noted():
    error = ValueError("noted")
    error.add_note("first note")
    error.add_note("second note")
    return error

def noted_wrongly():
    error = ValueError("noted wrongly")
    error.__notes__ = 5
    return error

def caused():
    try:
        try:
            raise KeyError("root")
        except KeyError as error:
            raise TwoArguments(1, "middle") from error
    except TwoArguments as error:
        top = ValueError("top")
        top.__cause__ = error
        return top

def circular():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one

def group():
    return ExceptionGroup("several", [ValueError("a"), TwoArguments(2, "b"), ExceptionGroup("in", [KeyError("c")])])

def in_arguments(thing):
    return ValueError("with", thing)

def swapped():
    # the class can't be found by its name any more
    class Swapped(Exception):
        pass
    Swapped.__module__ = "nowhere"
    return Swapped("swapped")

def generator():
    yield

# name -> (makes the exception, its class' name, text that must survive)
EVIL = {
    "two arguments": (lambda: TwoArguments(404, "gone"), "TwoArguments", "404: gone"),
    "keyword only": (lambda: KeywordOnly(code=5), "KeywordOnly", "5"),
    "no arguments": (lambda: NoArguments(), "NoArguments", "fixed text"),
    "failing init": (lambda: FailingInit("first"), "FailingInit", "first"),
    "failing reduce": (lambda: FailingReduce("text"), "FailingReduce", "text"),
    "exiting reduce": (lambda: ExitingReduce("text"), "ExitingReduce", "text"),
    "failing reduce_ex": (lambda: FailingReduceEx("text"), "FailingReduceEx", "text"),
    "failing str": (lambda: FailingStr("text"), "FailingStr", ""),
    "failing repr": (lambda: FailingRepr("text"), "FailingRepr", "text"),
    "failing both": (lambda: FailingBoth("text"), "FailingBoth", ""),
    "exiting str": (lambda: ExitingStr("text"), "ExitingStr", ""),
    "str of wrong type": (lambda: StrOfWrongType("text"), "StrOfWrongType", ""),
    "failing setstate": (lambda: FailingSetState("text"), "FailingSetState", "text"),
    "exiting setstate": (lambda: ExitingSetState("text"), "ExitingSetState", "text"),
    "setstate in the parent": (lambda: FailingSetStateInParentOnly("text"), "FailingSetStateInParentOnly", "text"),
    "lying reduce": (lambda: LyingReduce("text"), "LyingReduce", "text"),
    "huge message": (lambda: HugeMessage("x" * 3_000_000), "HugeMessage", "xxx"),
    "slotted": (lambda: Slotted("text"), "Slotted", "text"),
    "failing getstate": (lambda: NoDict("text"), "NoDict", "text"),
    "failing notes": (lambda: FailingNotes("text"), "FailingNotes", "text"),
    "failing eq": (lambda: FailingHash("text"), "FailingHash", "text"),
    "failing bool": (lambda: FailingBool("text"), "FailingBool", "text"),
    "failing getattr": (lambda: FailingGetattribute("text"), "FailingGetattribute", "text"),
    "two bases": (lambda: Multiple("text"), "Multiple", "text"),
    "metaclass": (lambda: WithMetaclass("text"), "WithMetaclass", "text"),
    "inner class": (lambda: Outer.Inner("text"), "Inner", "text"),
    "local class": (local, "Local", "local"),
    "unknown module": (swapped, "Swapped", "swapped"),
    "frozen": (lambda: Frozen(7), "Frozen", "7"),
    "dataclass": (lambda: Data(7), "Data", "7"),
    "lock attribute": (lambda: with_attribute(threading.Lock()), "ValueError", "attribute"),
    "socket attribute": (lambda: with_attribute(__import__("socket").socket()), "ValueError", "attribute"),
    "frame attribute": (lambda: with_attribute(sys._getframe()), "ValueError", "attribute"),
    "generator attribute": (lambda: with_attribute(generator()), "ValueError", "attribute"),
    "lambda attribute": (lambda: with_attribute(lambda: 1), "ValueError", "attribute"),
    "open file attribute": (lambda: with_attribute(open(os.devnull)), "ValueError", "attribute"),
    "lock argument": (lambda: in_arguments(threading.Lock()), "ValueError", "with"),
    "exception argument": (lambda: in_arguments(TwoArguments(1, "x")), "ValueError", "with"),
    "notes": (noted, "ValueError", "noted"),
    "wrong notes": (noted_wrongly, "ValueError", "noted wrongly"),
    "cause": (caused, "ValueError", "top"),
    "circular cause": (circular, "ValueError", "one"),
    "group": (group, "ExceptionGroup", "several"),
    "surrogate": (lambda: ValueError("\\ud800 text"), "ValueError", "text"),
    "null": (lambda: ValueError("a\\0b"), "ValueError", "b"),
    "no message": (lambda: ValueError(), "ValueError", ""),
    "non-string": (lambda: ValueError(5, None), "ValueError", "5"),
    "system error with file": (lambda: FileNotFoundError(2, "gone", "/f"), "FileNotFoundError", "gone"),
    "unicode": (lambda: UnicodeDecodeError("utf-8", b"\\xff", 0, 1, "bad"), "UnicodeDecodeError", "bad"),
    "import": (lambda: ImportError("no", name="n", path="p"), "ImportError", "no"),
    "attribute error": (lambda: AttributeError("no", name="n", obj=threading.Lock()), "AttributeError", "no"),
    "stop iteration": (lambda: StopIteration(5), "StopIteration", "5"),
    "stop async iteration": (lambda: StopAsyncIteration(5), "StopAsyncIteration", "5"),
    "process error": (lambda: __import__("subprocess").CalledProcessError(3, ["x"]), "CalledProcessError", "3"),
    "json": (lambda: __import__("json").JSONDecodeError("bad", "doc", 1), "JSONDecodeError", "bad"),
    "url": (lambda: __import__("urllib.error").error.HTTPError("u", 404, "gone", {}, None), "HTTPError", "gone"),
    "a failure of ours": (lambda: WorkerFailure("own", exit_code=3), "WorkerFailure", "own"),
    "a wait of ours": (lambda: WaitTimeout("that", 3), "WaitTimeout", "that"),
    "usage": (lambda: UsageError("own"), "UsageError", "own"),
    "task failure": (lambda: TaskFailure("on purpose"), "TaskFailure", "on purpose"),
    "assertion": (lambda: AssertionError("no"), "AssertionError", "no"),
    "timeout": (lambda: TimeoutError("mine"), "TimeoutError", "mine"),
    "stop of ours": (lambda: StoppedFailure("mine"), "StoppedFailure", "mine"),
}
assert len(EVIL) >= 60, len(EVIL)
"""

EVIL_CASE = (
    EVIL
    + """
@job
def user_function(name):
    write("ran", name.replace(" ", "_"))
    raise EVIL[name][0]()

if RUNNER_NAME == "spawn":  # a process for each takes long; what differs is that classes travel by value
    EVIL = dict([*EVIL.items()][::3])
runs = {name: user_function(name) for name in EVIL}
wrong = []
for name, run in runs.items():
    make, class_name, text = EVIL[name]
    try:
        outcome = run.outcome()
        assert isinstance(outcome, Failure), f"outcome {outcome!r}"
        error = run.get_result(timeout=LIMIT, raise_exceptions=False)
        assert isinstance(error, BaseException), f"returned {error!r}"
        assert not isinstance(error, WorkerFailure) or class_name == "WorkerFailure", f"lost: {error}"
        try:
            run.get_result()
        except BaseException as raised:
            assert raised is error, f"raised another: {raised!r}"
        else:
            raise AssertionError("get_result returned")
        user = original(error)
        if isinstance(user, ExceptionStandIn):
            assert user.type_name.endswith(class_name), f"stands for {user.type_name}"
            assert text in user.message, f"message {user.message!r}"
            assert IS_PROCESS, "a stand-in without a boundary"
        else:
            if RUNNER_NAME == "async" and name == "stop iteration":
                class_name = "RuntimeError"  # what Python makes of it in a coroutine
                text = "StopIteration"
            same(type(user).__name__, class_name)
            try:
                said = str(user)
            except BaseException:
                said = text
            assert text in said, f"says {said!r}"
        trace = outcome.traceback
        if error is user and isinstance(error, Failure):
            pass  # a failure raised on purpose may be the run's own
        else:
            assert "user_function" in trace, f"traceback {trace[-300:]!r}"
        if name == "notes":
            assert {"first note", "second note"} <= set(user.__notes__), user.__notes__
        if name == "cause":
            cause = user.__cause__
            assert type(cause).__name__ == "TwoArguments", repr(cause)
            assert type(cause.__cause__) is KeyError, repr(cause.__cause__)
        if name == "group":
            same([type(one).__name__ for one in user.exceptions], ["ValueError", "TwoArguments", "ExceptionGroup"])
        if name in ("two arguments", "dataclass", "keyword only"):
            assert type(user) is type(make()), "the user's type was possible"
            same(vars(user).get("code"), vars(make()).get("code"))
        repr(run), str(run)
    except BaseException as problem:
        wrong.append(f"{name}: {type(problem).__name__}: {problem}")
same(len(lines("ran")), len(EVIL))
assert not wrong, "\\n".join(["wrong:", *wrong])
works()
runs.clear()  # with what their exceptions hold: a socket, an open file
del run, outcome, error, user
"""
)


@covers("exceptions-evil")
def test_exceptions_that_misbehave(run_case, runner):
    """An exception that misbehaves in any way arrives as itself or as a stand-in that says all of it."""
    run_case(EVIL_CASE, runner=runner, limit=60)


@covers("exceptions-stdlib", runners=["fork"])
def test_every_exception_of_the_standard_library(run_case, runner):
    """Each exception class of the standard library that can travel arrives as itself."""
    run_case(
        """
        import builtins, importlib, pickle, warnings
        warnings.simplefilter("ignore")
        names = '''asyncio binascii bdb bz2 calendar codecs concurrent.futures configparser contextlib copy csv
        ctypes dataclasses decimal doctest email.errors fractions ftplib getopt gettext graphlib gzip hmac
        html http.client http.cookiejar http.cookies imaplib importlib.metadata inspect io ipaddress json locale lzma
        mailbox multiprocessing netrc os pdb pickle plistlib poplib profile pstats queue re selectors
        shelve shutil smtplib socket sqlite3 ssl statistics string struct subprocess tarfile tempfile threading
        tokenize tomllib traceback types unittest urllib.error urllib.parse uuid warnings wave weakref
        webbrowser xml.dom xml.etree.ElementTree xml.parsers.expat xml.sax xmlrpc.client zipfile zlib'''.split()
        classes = {}
        for module in [builtins, *map(importlib.import_module, names)]:
            for thing in vars(module).values():
                if isinstance(thing, type) and issubclass(thing, Exception):
                    classes[f"{thing.__module__}.{thing.__qualname__}"] = thing
        assert len(classes) > 150, len(classes)

        def make(cls):
            special = {
                "UnicodeDecodeError": ("utf-8", b"x", 0, 1, "why"),
                "UnicodeEncodeError": ("utf-8", "x", 0, 1, "why"),
                "UnicodeTranslateError": ("x", 0, 1, "why"),
                "ExceptionGroup": ("several", [ValueError("one")]),
            }
            attempts = [special[cls.__name__]] if cls.__name__ in special else []
            attempts += [("message",), (), (1, "two"), ("a", "b", "c"), ("a", "b", 3)]
            attempts += [("a", 1, "c", "d"), ("a", 1, "c", {}, None)]
            for arguments in attempts:
                try:
                    return cls(*arguments)
                except Exception:
                    pass
            return None

        def travels(error):
            try:
                twin = pickle.loads(pickle.dumps(error))
                return type(twin) is type(error) and str(twin) == str(error)
            except BaseException:
                return False

        errors = {name: error for name, cls in classes.items() if (error := make(cls)) is not None}
        assert len(errors) > 150, len(errors)

        @job
        def user_function(name):
            raise errors[name]

        runs = {name: user_function(name) for name in errors}
        wrong = []
        for name, run in runs.items():
            error = original(run.get_result(timeout=LIMIT, raise_exceptions=False))
            expected = errors[name]
            if isinstance(error, ExceptionStandIn):
                if travels(expected):
                    wrong.append(f"{name}: a stand-in")
                elif not error.type_name.endswith(classes[name].__name__):
                    wrong.append(f"{name}: stands for {error.type_name}")
            elif type(error) is not type(expected):
                wrong.append(f"{name}: {error!r}")
            elif str(error) != str(expected):
                wrong.append(f"{name}: says {error}")
        assert not wrong, wrong
        print(len(errors), "classes")
        """,
        runner=runner,
        limit=60,
    )


@covers("cause-chain")
def test_very_long_cause_chain(run_case, runner):
    """An exception with 10,000 causes arrives, with its chain or a clear remark; nothing overflows."""
    run_case(
        """
        @job
        def chained(attribute):
            error = ValueError("root")
            for number in range(10_000):
                outer = ValueError(str(number))
                setattr(outer, attribute, error)
                error = outer
            raise error

        for attribute in ("__cause__", "__context__"):
            run = chained(attribute)
            error = error_of(run, ValueError)
            same(str(error), "9999")
            depth, inner = 0, error
            while (inner := getattr(inner, attribute)) is not None:
                depth += 1
            assert depth >= 10, depth
            str(run.outcome()), repr(run.outcome()), run.outcome().traceback
        works()
        """,
        runner=runner,
    )


@covers("base-exceptions")
def test_base_exceptions(run_case, runner):
    """What isn't an Exception fails the run as TaskFailure, is not retried, and the caller lives on."""
    run_case(
        """
        class Own(BaseException):
            pass

        kinds = {
            "exit": lambda: SystemExit(3),
            "exit none": lambda: SystemExit(),
            "interrupt": KeyboardInterrupt,
            "generator": GeneratorExit,
            "cancelled": lambda: asyncio.CancelledError("mine"),
            "own": lambda: Own("mine"),
            "group": lambda: BaseExceptionGroup("mine", [Own("one"), KeyboardInterrupt()]),
            "stopped": lambda: TaskStopped("mine"),
        }

        @job(retries=2)
        def body(kind):
            write(kind)
            raise kinds[kind]()

        for kind, make in kinds.items():
            run = body(kind)
            if kind == "stopped":
                failure = error_of(run, (TaskFailure, StoppedFailure))
                continue
            failure = error_of(run, TaskFailure)
            same(type(failure.__cause__).__name__, type(make()).__name__)
            same(lines().count(kind), 1)
            assert type(make()).__name__ in str(failure) + failure.traceback, str(failure)
        if IS_PROCESS:
            leave = job(lambda: sys.exit("said and gone"))()
            same(error_of(leave, TaskFailure).__cause__.code, "said and gone")
        stop = error_of(job(lambda: next(iter(())))(), RuntimeError if RUNNER_NAME == "async" else TaskFailure)
        if RUNNER_NAME != "async":  # where Python itself makes a RuntimeError of it
            assert isinstance(stop.__cause__, StopIteration), stop.__cause__
        works()
        """,
        runner=runner,
    )


@covers("unpicklable-argument", runners=["fork", "spawn"])
def test_unpicklable_argument(run_case, runner):
    """An argument that can't be pickled is an error at the call and starts nothing; a fork needs no pickling."""
    run_case(
        """
        class Slotted:
            __slots__ = ("held",)
            def __init__(self, held):
                self.held = held

        class Refuses:
            def __reduce__(self):
                raise RuntimeError("never pickled")

        @job
        def take(value, *more):
            write("ran")
            return type(value).__name__

        things = [Slotted(sys._getframe()), (x for x in ()), sys._getframe(), Refuses(),
                  threading.Lock(), {"deep": [1, {"er": threading.RLock()}]}]
        refused = 0
        for thing in things:
            try:
                run = take(thing)
            except Exception as error:
                assert RUNNER_NAME == "spawn", error
                assert isinstance(error, (UsageError, TypeError)), repr(error)
                if isinstance(thing, dict):
                    assert "deep" in str(error), error
                refused += 1
            else:
                if RUNNER_NAME == "spawn":
                    # a lock arrives as another lock: nobody must be told that it worked
                    raise AssertionError(f"{type(thing)} was accepted")
                same(value_of(run), type(thing).__name__)
        same(refused, len(things) if RUNNER_NAME == "spawn" else 0)
        same(len(lines("ran")), len(things) - refused)
        works()
        """,
        runner=runner,
    )


@covers("unpicklable-result", "lock-result", "generator")
def test_unpicklable_results(run_case, runner):
    """A result that can't travel fails its run and is named; a lock never arrives as another lock."""
    run_case(
        """
        import socket

        class Refuses:
            def __reduce__(self):
                raise RuntimeError("never pickled")

        class Leaves:
            def __reduce__(self):
                raise SystemExit(9)

        things = {
            "Lock": threading.Lock,
            "RLock": threading.RLock,
            "Condition": threading.Condition,
            "generator": lambda: (x for x in ()),
            "frame": sys._getframe,
            "socket": socket.socket,
            "TextIOWrapper": lambda: open(os.devnull, "w"),
            "Refuses": Refuses,
            "Leaves": Leaves,
            "in a list": lambda: [1, {"x": threading.Lock()}],
        }

        @job
        def body(name):
            return things[name]()

        wrong = []
        for name in things:
            run = body(name)
            answer = run.get_result(timeout=LIMIT, raise_exceptions=False)
            said = f"{answer} {run.outcome()} {getattr(answer, '__notes__', '')}"
            if not isinstance(answer, BaseException):
                wrong.append(f"{name} arrived as {answer!r}")
            elif isinstance(answer, WorkerFailure) and answer.signal is not None:
                wrong.append(f"{name} killed its worker: {answer}")
            elif name in ("Lock", "generator", "Refuses", "socket") and name.lower() not in said.lower():
                wrong.append(f"{name} isn't named: {answer}")
        assert not wrong, wrong
        works()
        """,
        runner=runner,
    )


@covers("generator")
def test_generator_tasks(run_case, runner):
    """A generator function is refused at its decoration, an asynchronous one too."""
    run_case(
        """
        def numbers():
            yield 1

        async def more_numbers():
            yield 1

        for function in (numbers, more_numbers):
            try:
                task(function, runner=RUNNER)
            except UsageError as error:
                assert isinstance(error, ValueError)
                assert function.__name__ in str(error), error
            else:
                raise AssertionError("accepted")
        """,
        runner=runner,
    )


@covers("sizes")
def test_results_of_every_size(run_case, runner):
    """Results around every buffer's size arrive intact, read late or at once."""
    run_case(
        """
        import hashlib
        sizes = [0, 1, 1000, 4096, 8192, 65_000, 65_535, 65_536, 65_537, 66_000, 131_072, 212_992, 250_000, 1_000_000]
        if RUNNER_NAME == "spawn":
            sizes = sizes[::3] + [66_000]

        @job
        def body(size):
            data = os.urandom(size)
            write("sum", size, hashlib.md5(data).hexdigest())
            return data

        @job
        def text(size):
            return ["x" * size, {"a": "é" * size}]

        def check(size, data):
            same(len(data), size)
            assert f"sum {size} {hashlib.md5(data).hexdigest()}" in lines("sum")

        runs = [body(size) for size in sizes]
        for size, run in zip(sizes, runs):
            assert run.wait(timeout=LIMIT)  # needs no get_result
        for size, run in zip(sizes, runs):
            check(size, value_of(run))
        for size in sizes:
            check(size, body(size).get_result(timeout=LIMIT))
        same(value_of(text(50_000)), ["x" * 50_000, {"a": "é" * 50_000}])
        """,
        runner=runner,
    )


@covers("huge")
def test_result_of_256_megabytes(run_case, runner):
    """256 MB arrive intact, and the parent never holds more than the result and 64 MB."""
    run_case(
        """
        size = 256 << 20

        @job
        def body(kind):
            data = b"0123456789abcdef" * (size // 16)
            return data if kind == "bytes" else [data, bytearray(b"end")]

        before = memory()
        run = body("bytes")
        data = run.get_result(timeout=60)
        peak = maximum_memory() - before
        same(len(data), size)
        same(data[:16] + data[-16:], b"0123456789abcdef" * 2)
        same(data.count(b"f"), size // 16)
        assert peak <= size + (64 << 20), f"peak {peak >> 20} MB"
        del data, run
        gc.collect()
        assert memory() - before < 64 << 20, f"kept {(memory() - before) >> 20} MB"
        """,
        runner=runner,
        limit=60,
    )


@covers("nested-list")
def test_deeply_nested_result(run_case, runner):
    """A list nested 100,000 deep arrives or fails with a clear error; nothing crashes."""
    run_case(
        """
        @job
        def nest(depth):
            value = []
            for _ in range(depth):
                value = [value]
            return value

        for depth in (100, 100_000):
            run = nest(depth)
            answer = run.get_result(timeout=LIMIT, raise_exceptions=False)
            if isinstance(answer, BaseException):
                assert IS_PROCESS
                assert not isinstance(answer, WorkerFailure) or answer.signal is None, answer
                assert depth > 100, answer
                assert "recursion" in str(answer).lower() or "nest" in str(answer).lower(), answer
            else:
                for _ in range(depth):
                    answer = answer[0]
                same(answer, [])
        works()
        """,
        runner=runner,
    )


@covers("evil-unpickling")
def test_results_that_misbehave_in_the_parent(run_case, runner):
    """A result whose unpickling raises, exits or interrupts in the parent fails its own run only."""
    run_case(
        """
        HOME = os.environ["FAULTS_BEGUN"]

        def act(what):
            if str(os.getpid()) != HOME:
                return what  # the worker's trial goes well
            write("in the parent", what)
            if what == "raise":
                raise RuntimeError("in the parent")
            if what == "exit":
                raise SystemExit(3)
            if what == "interrupt":
                raise KeyboardInterrupt
            if what == "recurse":
                act("recurse")
            if what == "sleep":
                time.sleep(0.3)
            if what == "woflo":
                return double(4).get_result(timeout=LIMIT)
            if what == "stop":
                raise TaskStopped
            return what

        class Trap:
            def __init__(self, what, weight=0):
                self.what, self.weight = what, b"x" * weight
            def __reduce__(self):
                return act, (self.what,)

        @job
        def body(what):
            return [Trap(what), b"x" * (200_000 if what == "exit" else 10)]

        for what in ("raise", "exit", "interrupt", "recurse", "stop"):
            run, neighbour = body(what), double(5)
            try:
                run.wait(timeout=LIMIT)
            except KeyboardInterrupt:  # nobody can tell it from Ctrl-C
                same(what, "interrupt")
            error = run.get_result(timeout=LIMIT, raise_exceptions=False)
            assert isinstance(error, BaseException), (what, error)
            error_of(run, BaseException)
            same(value_of(neighbour), 10)
            works()
        same(value_of(body("sleep"))[0], "sleep")
        same(value_of(body("woflo"))[0], 8)
        """,
        runner=runner,
    )


@covers("evil-del")
def test_destructors_that_misbehave(run_case, runner):
    """A __del__ that raises or hangs in the worker can't take the result back."""
    run_case(
        """
        class Evil:
            def __init__(self, how):
                self.how = how
            def __del__(self):
                if str(os.getpid()) == os.environ["FAULTS_BEGUN"]:
                    return
                if self.how == "raise":
                    raise RuntimeError("del")
                if self.how == "hang":
                    time.sleep(LIMIT)
                if self.how == "exit":
                    os._exit(5)

        @job
        def body(how):
            global kept
            kept = Evil(how)
            cycle = [Evil(how)]
            cycle.append(cycle)
            return how

        for how in ("raise", "hang", "exit"):
            began = time.monotonic()
            same(value_of(body(how)), how)
            assert time.monotonic() - began < LIMIT / 2
        works()
        """,
        runner=runner,
    )


@covers("exception-returned", "none-is-a-value")
def test_values_that_look_like_failures(run_case, runner):
    """An exception or a failure that a task *returns* is a value; None is one only if it was returned."""
    run_case(
        """
        @job
        def give(what):
            return {"none": None, "error": ValueError("a value"), "failure": TaskFailure("a value"),
                    "ok": Ok(5), "class": ValueError, "false": False}[what]

        same(value_of(give("none")), None)
        for what, kind in (("error", ValueError), ("failure", TaskFailure), ("ok", Ok)):
            run = give(what)
            assert type(run.get_result(timeout=LIMIT)) is kind
            assert type(run.get_result(raise_exceptions=False)) is kind
            assert isinstance(run.outcome(), Ok), run.outcome()
            assert type(run.outcome().value) is kind
            same(run.exception(), None)
            same(run.state, "succeeded")
        assert value_of(give("class")) is ValueError
        assert value_of(give("false")) is False

        failed = job(lambda: 1 / 0)()
        assert failed.get_result(timeout=LIMIT, raise_exceptions=False) is not None
        assert isinstance(failed.exception(), ZeroDivisionError)
        same(failed.state, "failed")
        """,
        runner=runner,
    )


@covers("exceptions-evil", runners=RUNNERS)
def test_traceback_and_note(run_case, runner):
    """The user's exception carries the worker's frames and a note with task, run and attempt."""
    run_case(
        """
        import traceback

        def inner():
            raise ValueError("deep inside")

        @job(retries=1, name="clean")
        def outer():
            inner()

        run = outer()
        error = error_of(run, ValueError)
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names[-2:] == ["outer", "inner"], names
        notes = "\\n".join(error.__notes__)
        assert "clean" in notes and "clean-1" in notes and "2 of 2" in notes, notes
        text = "".join(traceback.format_exception(error))
        assert "deep inside" in text and 'case.py' in text, text
        # raised many times, its traceback doesn't grow
        for _ in range(50):
            try:
                run.get_result()
            except ValueError as again:
                depth = len(traceback.extract_tb(again.__traceback__))
        assert depth < len(names) + 20, depth
        """,
        runner=runner,
    )


@covers("evil-unpickling", runners=PROCESSES)
def test_result_class_unknown_to_the_parent(run_case, runner):
    """A result of a class that only the worker knows arrives, or fails with its name."""
    run_case(
        """
        @job
        def body():
            class OnlyHere:
                value = 5
            return OnlyHere()

        answer = body().get_result(timeout=LIMIT, raise_exceptions=False)
        assert isinstance(answer, BaseException) and "OnlyHere" in str(answer) or answer.value == 5, answer
        works()
        """,
        runner=runner,
    )


@covers("exceptions-evil", runners=HERE)
def test_identity_without_a_boundary(run_case, runner):
    """Where nothing is pickled the very objects arrive: result and exception."""
    run_case(
        """
        thing, problem = threading.Lock(), ValueError("this one")

        @job
        def give():
            return thing

        @job
        def fail():
            raise problem

        assert value_of(give()) is thing
        assert error_of(fail(), ValueError) is problem
        """,
        runner=runner,
    )
