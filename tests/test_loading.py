"""Importing in a hurry: the switch interval is short inside of it, and nobody's afterwards but the program's."""

from __future__ import annotations

import contextlib
import importlib.machinery
import pickle
import sys
import threading
import types

import pytest

from woflo import _loading
from woflo.runners import _shipping


@pytest.fixture(autouse=True)
def _interval():
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_short_inside_and_as_before_afterwards():
    """The thread gets the GIL soon, and the program's interval is back whatever happens inside."""
    before = sys.getswitchinterval()
    with contextlib.suppress(ImportError), _loading.hurry():
        assert sys.getswitchinterval() < before / 10
        raise ImportError
    assert sys.getswitchinterval() == before


def test_an_interval_of_the_programs_own_stays():
    """What the program sets meanwhile is not set back, and a shorter one isn't lengthened."""
    with _loading.hurry():
        sys.setswitchinterval(0.25)
    assert sys.getswitchinterval() == pytest.approx(0.25)
    sys.setswitchinterval(0.00001)
    with _loading.hurry():
        assert sys.getswitchinterval() == pytest.approx(0.00001)
    assert sys.getswitchinterval() == pytest.approx(0.00001)


def test_two_at_once():
    """However two hurries overlap, the interval of the beginning is back at the end."""
    before = sys.getswitchinterval()
    inside, leave = threading.Event(), threading.Event()

    def first():
        with _loading.hurry():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with _loading.hurry():
        leave.set()
        thread.join()
        assert sys.getswitchinterval() == before
    assert sys.getswitchinterval() == before
    with _loading.hurry():
        assert sys.getswitchinterval() < before


def test_half_a_module_is_none(monkeypatch):
    """What another thread is just importing isn't used: calls are pickled without it, as if it weren't there."""
    name = "multiprocessing.reduction"
    half = types.ModuleType(name)
    half.__spec__ = importlib.machinery.ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, half)
    half.__spec__._initializing = True
    assert _loading.loaded(name) is None
    assert pickle.loads(_shipping._by_value([1])) == [1]
    half.__spec__._initializing = False
    assert _loading.loaded(name) is half
    assert _loading.loaded("no.such.module") is None
