"""A worker process of Beam's local runner, as gdo starts it: without a word of its own, and gone when its launcher is."""

import atexit
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1
SAMPLE_MS = 10


@contextmanager
def brisk() -> Iterator[None]:
    """While the body runs, bundles end when they are done.

    Beam waits at the end of each one for the thread that samples what it is at; that sleeps for up to 200 ms.
    """
    from apache_beam.runners.worker import statesampler

    start = statesampler.StateSampler.__init__
    before, start.__defaults__ = start.__defaults__, (SAMPLE_MS,)
    try:
        yield
    finally:
        start.__defaults__ = before


def main() -> None:
    """Serve the launcher until it hangs up.

    It waits for one worker after the other, and to take an interpreter down takes its time: the process is left when all
    that others registered for its end is done.
    """
    status = 1

    def leave() -> None:
        sys.stdout.flush()
        os._exit(status)

    atexit.register(leave)  # the first to be registered is the last to be called
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher, which ends the work in order
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # What is worth telling goes to the launcher; Beam would write it here as well.
    logging.getLogger().addHandler(logging.NullHandler())
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (for the life of the process)
    from apache_beam.runners.worker import sdk_worker_main

    with brisk():
        sdk_worker_main.main(sys.argv)
    status = 0


if __name__ == "__main__":
    main()
