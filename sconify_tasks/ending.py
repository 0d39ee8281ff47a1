"""The end of a run: results go out, and only the interpreter is left to end. A Ctrl-C comes too late to change anything."""

from __future__ import annotations

import signal
import threading


def over(code: int) -> int:
    """Return the exit code; from here on Ctrl-C is not heard. A Python that is interrupted while it ends prints a traceback."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code
