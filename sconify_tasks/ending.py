"""The end of a run: results go out, and only the interpreter is left to end. A Ctrl-C comes too late to change anything."""

from __future__ import annotations

import os
import signal
import sys
import threading


def results_go_out() -> None:
    """From here on Ctrl-C is not heard: a Python that is interrupted while it ends prints a traceback."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def over(code: int) -> int:
    """Return the exit code, when all was written.

    Where threads still work, as after a Ctrl-C, the process ends here: a Python that ends under them unwinds their stacks,
    and aborts if it meets the frames of a library that is not written in C.
    """
    results_go_out()
    if threading.current_thread() is threading.main_thread() and threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
