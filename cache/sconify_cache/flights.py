"""One run of an action at a time: who comes second waits, and then finds what the first one made.

Among threads by a lock, among processes on one cache folder by a lock on one byte of one file, at a place that the action's
key gives. It is a lock of the open file (fcntl(2), F_OFD_SETLK): the kernel takes it back when its process dies, and nothing
is left lying about. It only saves work. Where the file system has no locks, or another process holds one for longer than
`patience`, the action runs a second time, to the same bytes.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from sconify_cache.digest import Digest

PATIENCE = 60.0
_FIRST_LOOK, _LONGEST_LOOK = 0.000_5, 0.05
_FLOCK = "hhqqi"  # struct flock on 64-bit Linux: type, whence, start, length, pid
_PLACE_DIGITS = 15  # of the key: an offset below 2^60


class Flights:
    """Locks by action key. Safe for any number of threads; the file is made when the first action runs."""

    def __init__(self, file: Path, *, patience: float = PATIENCE) -> None:
        self._file, self._patience = file, patience
        self._guard = Lock()
        self._flying: dict[Digest, tuple[Lock, int]] = {}
        self._descriptor: int | None = None

    @contextmanager
    def alone(self, key: Digest) -> Iterator[None]:
        """Run the body while nobody else runs one for the same key. Not for a body that asks for another key."""
        lock = self._join(key)
        try:
            with lock:
                taken = self._take(key)
                try:
                    yield
                finally:
                    if taken:
                        self._set(fcntl.F_UNLCK, key)
        finally:
            self._leave(key)

    def close(self) -> None:
        """Let go of the file. Nobody may be in a body."""
        with self._guard:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _join(self, key: Digest) -> Lock:
        with self._guard:
            lock, count = self._flying.get(key, (Lock(), 0))
            self._flying[key] = (lock, count + 1)
            return lock

    def _leave(self, key: Digest) -> None:
        with self._guard:
            lock, count = self._flying[key]
            if count == 1:
                del self._flying[key]
            else:
                self._flying[key] = (lock, count - 1)

    def _take(self, key: Digest) -> bool:
        """Whether the byte is ours; False where there are no locks, or patience ran out."""
        try:
            self._open()
        except OSError:
            return False
        end = time.monotonic() + self._patience
        pause = _FIRST_LOOK
        while True:
            try:
                self._set(fcntl.F_WRLCK, key)
            except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another process has it
                if time.monotonic() + pause > end:
                    return False
            except OSError:
                return False
            else:
                return True
            time.sleep(pause)
            pause = min(1.3 * pause, _LONGEST_LOOK)

    def _set(self, kind: int, key: Digest) -> None:
        start = int(key[:_PLACE_DIGITS], 16)
        fcntl.fcntl(self._open(), fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, start, 1, 0))

    def _open(self) -> int:
        with self._guard:
            if self._descriptor is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self._file, flags, 0o600)
            return self._descriptor
