"""What each promise of a fork run costs, one on top of the other. Microseconds per no-op task.

Every step does what the ones before it do and one thing more, as woflo's worker and supervisor do it; the last line is
woflo itself, so what lies between the two last lines is the TaskRun. Steps differ by less than one interpreter differs
from the next, so here all of them run in *one* interpreter, in turn, in small blocks; the figure of a step is the
median of its blocks. `together` has 25 tasks in flight, `each` one.
"""

import _signal  # `signal` turns every number into an enum member; woflo calls what lies beneath, too
import _socket
import fcntl
import os
import pickle
import select
import sys
import time
from importlib import import_module
from statistics import median

from benchmarks._peer import Skip, ours
from benchmarks.processes import ORDINARY

STEPS = (
    "raw",
    "socketpair",  # instead of a pipe: a descriptor can be sent through it
    "pickled frame",  # the result as a protocol-5 pickle, and read from it
    "process group",  # the worker and all it starts can be ended at once
    "lifeline",  # the kernel kills the group when the parent dies
    "signals",  # INT, TTIN, TTOU ignored, a handler for TERM
    "stdin",  # from /dev/null
    "flush",  # stdout and stderr, before the fork and at the worker's end
    "pidfd",  # one epoll set knows frames and deaths
    "group kill",  # the worker's last act ends what is left of its group
)
IN_FLIGHT = 25  # tasks of a block in `together`
BLOCK = 50  # tasks
F_SETSIG = 10  # fcntl command of Linux that the module doesn't name


def together(_contestant: str, blocks: int) -> dict[str, float]:
    return interleaved(blocks, in_flight=IN_FLIGHT)


def each(_contestant: str, blocks: int) -> dict[str, float]:
    return interleaved(blocks, in_flight=1)


def interleaved(blocks, *, in_flight):
    if sys.platform != "linux":
        raise Skip("the lifeline and the pidfd are Linux's")
    for name in ORDINARY:
        import_module(name)
    steps = {name: Step(level) for level, name in enumerate(STEPS)}
    contestants = {name: (step.start, step.collect, step.settle) for name, step in steps.items()}
    contestants["woflo"] = woflo()
    took = {name: [] for name in contestants}
    for number in range(blocks + 1):
        for name, (start, collect, settle) in contestants.items():
            begin = time.perf_counter()
            for _ in range(BLOCK // in_flight):
                for handle in [start() for _ in range(in_flight)]:
                    collect(handle)
                settle()
            if number:
                took[name].append(time.perf_counter() - begin)
    return {name: median(times) / BLOCK * 1e6 for name, times in took.items()}


def woflo():
    run_noop = ours().task(lambda: None)

    def nothing():
        """Reap nothing: woflo collects its workers by itself."""

    return run_noop, lambda run: run.get_result(), nothing


class Step:
    """The parent's side of the step number `level`: everything up to it is done."""

    def __init__(self, level):
        self.active = frozenset(STEPS[: level + 1])
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.epoll = select.epoll()
        self.alive = {}  # (pid, channel, pidfd) by either descriptor
        self.frames = {}  # by pid

    def start(self):
        active = self.active
        if "flush" in active:
            sys.stdout.flush()
            sys.stderr.flush()
        if "socketpair" in active:
            reader, writer = (end.detach() for end in _socket.socketpair())
        else:
            reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(active, writer, self.null)
        os.close(writer)
        if "pidfd" in active:
            watch = os.pidfd_open(pid)
            self.alive[reader] = self.alive[watch] = (pid, reader, watch)
            self.epoll.register(watch, select.EPOLLIN)
            self.epoll.register(reader, select.EPOLLIN)
        return pid, reader

    def collect(self, handle):
        pid, reader = handle
        if "pidfd" in self.active:
            while pid not in self.frames:
                self.pump()
            frame = self.frames.pop(pid)
        else:
            frame = os.read(reader, 4096)
            os.close(reader)
            if "process group" in self.active:
                os.killpg(pid, _signal.SIGKILL)
            os.waitpid(pid, 0)
        return pickle.loads(frame) if "pickled frame" in self.active else None

    def pump(self):
        """Take frames and reap the dead; a frame can come before or with the death of its worker."""
        for descriptor, _ in self.epoll.poll():
            pid, reader, watch = self.alive.pop(descriptor)
            self.epoll.unregister(descriptor)
            if descriptor == reader:
                self.frames[pid] = os.read(reader, 4096)
                os.close(reader)
            else:
                os.killpg(pid, _signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(watch)

    def settle(self):
        """Reap what a block has left."""
        while self.alive:
            self.pump()


def child(active, writer, null):
    """What the worker does before and after its task; never returns."""
    if "process group" in active:
        os.setpgid(0, 0)
    if "lifeline" in active:
        fcntl.fcntl(writer, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(writer, F_SETSIG, _signal.SIGKILL)
        fcntl.fcntl(writer, fcntl.F_SETFL, os.O_ASYNC)
    if "signals" in active:
        for number in (_signal.SIGINT, _signal.SIGTTIN, _signal.SIGTTOU):
            _signal.signal(number, _signal.SIG_IGN)
        _signal.signal(_signal.SIGTERM, sys.exit)
    if "stdin" in active:
        os.dup2(null, 0)
    os.write(writer, pickle.dumps(("ok", None), 5) if "pickled frame" in active else b"x" * 20)
    if "flush" in active:
        sys.stdout.flush()
        sys.stderr.flush()
    if "group kill" in active:
        os.killpg(0, _signal.SIGKILL)
    os._exit(0)
