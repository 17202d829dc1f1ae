"""Ten no-ops in one multiprocessing.Process each, results through pipes."""

from multiprocessing import get_context

context = get_context("fork")
started = []
for _ in range(10):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=sender.send, args=(None,))
    process.start()
    sender.close()
    started.append((process, receiver))
for process, receiver in started:
    receiver.recv()
    process.join()
