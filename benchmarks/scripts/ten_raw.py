"""Ten no-ops in raw forked processes: all started, then collected."""

import os

started = []
for _ in range(10):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"x" * 20)
        os._exit(0)
    os.close(writer)
    started.append((pid, reader))
for pid, reader in started:
    os.read(reader, 100)
    os.waitpid(pid, 0)
    os.close(reader)
