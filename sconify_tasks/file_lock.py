"""A lock that is a file's, where the file may be removed or get another name while somebody waits for it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIES = 16
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Who else may write to the folder could have put a link or a FIFO there: neither is followed nor waited for."""


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock of the file that has this name, made (with its folder) where there is none; yield its descriptor.

    Raises OSError where it can't be made. Not to be used twice in one thread: it would wait for itself.
    """
    while True:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_named(descriptor, path):  # else whoever had the lock has removed the file, or given it another name
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _opened(path: Path) -> int:
    """Open the file in a folder that others may be removing: then it is made again."""
    for _ in range(_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, _FLAGS, 0o666)
        except FileNotFoundError:
            continue
    return os.open(path, _FLAGS, 0o666)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
