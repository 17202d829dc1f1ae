"""A value has one digest wherever it is computed; different values never share one."""

from __future__ import annotations

import threading

import pytest

from woflo._fingerprint import Undigestible, cache_key, digest

DIFFERENT = [
    1,
    1.0,
    True,
    "1",
    b"1",
    1 + 0j,
    None,
    ...,
    0.0,
    -0.0,
    float("nan"),
    (1,),
    [1],
    {1},
    frozenset({1}),
    {1: 1},
]


def test_values_of_different_types_differ() -> None:
    """What compares equal but is of another type has another digest."""
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_order_of_dicts_and_sets_does_not_count() -> None:
    """What is equal whatever its order has one digest."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"x", 1, 2.5}) == digest({2.5, 1, "x"})


@pytest.mark.timeout(20)
def test_depth_and_cycles_do_no_harm() -> None:
    """A value may be as deep as memory allows, shared any number of times, and part of itself."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    shared: list[object] = []
    for _ in range(200):
        shared = [shared, shared]
    cycle: list[object] = []
    cycle.append(cycle)
    assert len({digest(deep), digest(shared), digest(cycle)}) == 3


def test_what_lives_only_here_is_undigestible() -> None:
    """The error says which part it is."""
    with pytest.raises(Undigestible) as caught:
        digest([{"lock": threading.Lock()}], "rows")
    assert caught.value.path == "rows[0]['lock']"


def test_keys_frame_their_parts() -> None:
    """A key tells where each part ends and whether it is text."""
    keys = {cache_key("ab", "c"), cache_key("a", "bc"), cache_key("abc"), cache_key(b"abc"), cache_key("abc", "")}
    assert len(keys) == 5
