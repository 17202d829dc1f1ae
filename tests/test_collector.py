"""`_collector`: work during which the cyclic garbage collector rests."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from threading import get_ident

from woflo._collector import frames, paused
from woflo.testing import PATIENCE


def test_afterwards_it_is_as_it_was():
    """The collector works again behind the block, or rests as it did before."""
    assert gc.isenabled()
    with paused():
        assert not gc.isenabled()
        with paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_frames_amid_garbage():
    """Asking what threads are at comes back although each object made meanwhile would set off a collection of thread states."""
    script = """
        import gc, threading
        from woflo._collector import frames
        def deep(depth):
            if depth:
                deep(depth - 1)
            else:
                ready.set()
                threading.Event().wait()
        ready = threading.Event()
        threading.Thread(target=deep, args=(50,), daemon=True).start()
        ready.wait()
        for _ in range(300):
            for _ in range(5):
                local = threading.local()
                local.me = local
                cycle = [local]
                cycle.append(cycle)
            del local, cycle
            gc.set_threshold(1)
            found = frames()
            gc.set_threshold(700)
        print(len(found))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout.strip() == "2"


def test_frames_are_those_of_all_threads():
    """This thread's own is among them."""
    frame = frames()[get_ident()]
    while frame is not None and frame.f_code is not sys._getframe().f_code:
        frame = frame.f_back
    assert frame is sys._getframe()
