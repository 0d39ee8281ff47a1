"""Something small that is computed in a fork of this process, while it goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from sconify_tasks.forking import signals_blocked

_NOTHING = b"-"
_MOST = 4096


def beside(work: Callable[[], bytes | None]) -> Callable[[], bytes | None]:
    """Begin; what this returns is to be called for the result, once.

    Where nothing can be gained by a fork, or it comes to no end (it is killed), the work is done here. The result is short.
    """
    if len(os.sched_getaffinity(0)) < 2 or threading.active_count() > 1:  # noqa: PLR2004 - a fork has no thread but its own
        return work
    ours, theirs = os.pipe()
    try:
        with signals_blocked():  # the child, which is soon over, keeps them out
            child = os.fork()
            if child == 0:
                try:
                    found = work()
                    os.write(theirs, _NOTHING if found is None else b"+" + found)
                finally:
                    os._exit(0)
    except OSError:
        os.close(ours)
        return work
    finally:
        os.close(theirs)

    def result() -> bytes | None:
        try:
            said = os.read(ours, _MOST)
        finally:
            os.close(ours)
            with suppress(ChildProcessError):  # SIGCHLD is ignored, and the kernel took it
                os.waitpid(child, 0)
        if not said:
            return work()
        return None if said == _NOTHING else said[1:]

    return result
