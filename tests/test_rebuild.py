"""Whether what was made before is used again, and why: values in, a Decision out."""

from __future__ import annotations

import pickle

from woflo._rebuild import REASONS, Decision, Facts, Recipe, always, changed_parts, exists, once, traces


def recipe(code="c1", options=None, inputs=None, parts=None):
    return Recipe("key", code, parts or {"clean() itself": code}, options or {}, inputs or {})


SAME = Facts(recipe(), there=True)


def test_the_same_recipe_is_reused():
    """What the same recipe made is used again."""
    assert traces(recipe(), SAME) == Decision(True, "up to date")


def test_nothing_is_known():
    """A step that was never made runs for the first time."""
    assert traces(recipe(), Facts()) == Decision(False, "first run")


def test_changed_code_is_named():
    """The decision names the function that changed, and no other."""
    before = recipe(code="c1", parts={"model() itself": "m", "helper clean() in pipeline.py": "1"})
    now = recipe(code="c2", parts={"model() itself": "m", "helper clean() in pipeline.py": "2"})
    assert traces(now, Facts(None, before)) == Decision(False, "code changed", "helper clean() in pipeline.py")


def test_code_goes_before_options_and_inputs():
    """Where several things differ the code is named: it explains the most."""
    before = recipe(code="c1", options={"n": "1"}, inputs={"rows": "a"})
    assert (
        traces(recipe(code="c2", options={"n": "2"}, inputs={"rows": "b"}), Facts(None, before)).reason
        == "code changed"
    )


def test_a_changed_option_is_named():
    """The option and both of its digests are named."""
    decision = traces(recipe(options={"n": "22", "k": "1"}), Facts(None, recipe(options={"n": "11", "k": "1"})))
    assert decision == Decision(False, "option changed", "n (11 → 22)")


def test_a_changed_input_is_named():
    """The input and both of its digests are named; inputs that came or went too."""
    before, now = recipe(inputs={"rows": "a" * 64, "old": "x"}), recipe(inputs={"rows": "b" * 64, "more": "y"})
    decision = traces(now, Facts(None, before))
    assert decision.reason == "input changed"
    assert decision.detail == f"rows ({'a' * 12} → {'b' * 12}), more (new, y), old (no longer given)"


def test_what_was_not_kept_has_to_be_made_again():
    """A making whose products can't be had is no use."""
    assert traces(recipe(), Facts(recipe(), there=False)).reason == "product missing"


def test_a_corrupt_entry_is_told_from_a_missing_one():
    """Whether a record or a product can't be read is said."""
    assert traces(recipe(), Facts(corrupt=True)).reason == "entry corrupt"
    assert traces(recipe(), Facts(recipe(), corrupt=True)).reason == "entry corrupt"


def test_a_removed_record():
    """Where nothing differs from the last making its record was removed."""
    assert traces(recipe(), Facts(None, recipe())).reason == "product missing"


def test_the_other_rebuilders():
    """`always` runs, `once` keeps what was made whatever changed, `exists` asks for no record at all."""
    other = Facts(None, recipe(code="other"), there=True)
    assert not always(recipe(), SAME).reuse
    assert once(recipe(), other).reuse
    assert not once(recipe(), Facts()).reuse
    assert not once(recipe(), Facts(None, recipe(), there=False)).reuse
    assert exists(recipe(), Facts(there=True)).reuse
    assert not exists(recipe(), Facts()).reuse


def test_reasons_are_a_closed_set():
    """Every decision's reason is one of the listed ones."""
    facts = [
        Facts(same, last, corrupt=corrupt, there=there)
        for same in (None, recipe())
        for last in (None, recipe(code="x"), recipe(options={"n": "1"}), recipe(inputs={"n": "1"}), recipe())
        for corrupt in (False, True)
        for there in (False, True)
    ]
    assert {decide(recipe(), one).reason for decide in (traces, once, exists, always) for one in facts} <= set(REASONS)


def test_many_changes_fit_into_a_line():
    """Of many changed parts three are named and the others counted."""
    before, now = {str(n): "1" for n in range(9)}, {str(n): "2" for n in range(9)}
    assert changed_parts(before, now) == "0, 1, 2, and 6 more"
    assert changed_parts({"gone": "1"}, {"came": "1"}) == "came (new), gone (no longer used)"


def test_a_decision_is_a_value():
    """Decisions can be compared, hashed, pickled and read."""
    one = Decision(False, "code changed", "helper clean() in pipeline.py")
    assert pickle.loads(pickle.dumps(one)) == one
    assert len({one, Decision(False, "code changed", "helper clean() in pipeline.py")}) == 1
    assert str(one) == "code changed: helper clean() in pipeline.py"
    assert repr(Decision(True, "up to date")) == "<Decision reuse: up to date>"
