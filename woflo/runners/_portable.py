"""Spawned workers where there is nothing but processes and files: Windows.

No pidfd, no Unix socket, no process group, no lifeline: a thread waits for each worker, call and result lie in files of a
temporary folder, `stop` terminates the process at once (there is no SIGTERM that Python code could see). What the
supervisor promises about grandchildren and orphans does not hold here. The same code runs on POSIX, where it is tested.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock
from collections import deque

from woflo.result import WorkerFailure
from woflo.runners import _launch, _process, _progress, _shipping
from woflo.runners._slots import default_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_lock = allocate_lock()
_waiting: deque[tuple[Any, int]] = deque()  # runs and their attempts that wait for a thread
_threads = 0


def start(run: Any) -> None:
    """Have a thread start a worker for the run's attempt, as soon as there is room, and wait for it."""
    global _threads
    with _lock:
        _waiting.append((run, run.attempt))
        if _threads >= (run.max_running or default_size()):
            return
        _threads += 1
    try:
        _process.start_thread(_work_off, name="woflo-worker")
    except RuntimeError:
        with _lock:
            _threads -= 1
            if _threads == 0:
                _waiting.remove((run, run.attempt))
                raise


def _work_off() -> None:
    """A thread's life: one worker after the other, as long as runs wait."""
    global _threads
    while True:
        with _lock:
            if not _waiting:
                _threads -= 1
                return
            run, attempt = _waiting.popleft()
        _carry_out(run, attempt)
        del run


def _carry_out(run: Any, attempt: int) -> None:
    """In a thread: the whole life of one worker."""
    import pickle
    import subprocess
    import tempfile

    if run._stop_asked or run.attempt != attempt:
        return
    try:
        with tempfile.TemporaryDirectory(prefix="woflo-", ignore_cleanup_errors=True) as folder:
            call, answer, sheet = (os.path.join(folder, name) for name in ("call", "answer", "progress"))
            with open(call, "wb") as file:
                pickle.dump((sys.argv, attempt, run._parcel.data), file, 5)
            code = (
                "import sys; "
                f"sys.path[:] = {[p for p in sys.path if type(p) is str]!r}; from woflo.runners._portable import work; "
                f"work({call!r}, {answer!r}, {sheet!r})"
            )
            process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)  # noqa: S603 - ourselves
            run.pid, run._place = process.pid, process
            run._mark_started()
            reports = _progress.of(run)
            reports.source = lambda: _progress.read_file(sheet)
            reports.arrange(run)
            if run.task.timeout is not None:
                run._clock = _process.timers().call_later(run.task.timeout, lambda: run._overdue(attempt))
                run._attend()
            if run._stop_asked:
                process.kill()
            status = process.wait()
            run._place = None
            reports.look()  # the folder is about to go
            result = _read(answer)
    except OSError as error:
        name = str(error.errno)
        run.finish(run._named(WorkerFailure(f"could not be started: {error}", errno=name)))
        return
    if run.attempt == attempt:
        run._take(_launch.nobody(run), *(result or (None, status)))


def _read(path: str) -> tuple[bytes, bytes] | None:
    """The complete frame in a file: its kind and its body; None if there is none."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    size = int.from_bytes(data[1:9], "little")
    return (data[:1], data[9:]) if len(data) == _shipping.HEADER_BYTES + size else None


class _File:
    """What `send_result` takes for a channel: a file that gets the whole frame."""

    def __init__(self, path: str) -> None:
        self._path = path

    def sendall(self, data: bytes) -> None:
        with open(self._path, "wb") as file:
            file.write(data)

    send = sendall

    def sendmsg(self, parts: list[bytes], ancillary: list[Any]) -> None:
        """A large result: its pickle lies in an open file of the worker's own."""
        import shutil

        header, fd = parts[0], ancillary[0][2][0]
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "rb", closefd=False) as source, open(self._path, "wb") as file:
            file.write(header[-1:] + header[1:9])
            shutil.copyfileobj(source, file, 1 << 20)


def work(call: str, answer: str, sheet: str) -> None:
    """In the worker: carry out the call, write the answer; what the task reports goes to the sheet."""
    import pickle

    from woflo.runners import _attempt, _worker

    with open(call, "rb") as file:
        argv, attempt, data = pickle.load(file)
    sys.argv[:] = argv
    channel: Any = _File(answer)
    try:
        run = _shipping.load_call(data).run
    except BaseException as error:
        _shipping.send_result(channel, _shipping.broken_call(error), ())
        return
    run.attempt = attempt
    run._progress = _progress.SheetFile(sheet)
    result = _attempt.attempt(run)
    _worker.flush()
    _shipping.send_result(channel, result, ())
    _worker.finish_own_runs(result)


def kill(run: Any) -> None:
    """End the run's worker."""
    process = run._place
    if process is not None:
        process.kill()
