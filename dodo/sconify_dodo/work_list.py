"""The images of a run, for its workers to take one after the other, in memory that they share with it from their fork on.

The list is a file without a name, which all have open: a read(2) moves the one offset of all, so no two read the same entry
(open(2): open file descriptions; read(2), since Linux 3.14).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from mmap import mmap
from types import TracebackType
from typing import Self

_ENTRY = 4
"""Bytes of an image's number, counted from 1."""


class WorkList:
    """Each image is handed out once, to one of `workers`. To be made before they are forked."""

    def __init__(self, images: Iterable[str], *, workers: int) -> None:
        self._images = tuple(images)
        self._stop = mmap(-1, 1)
        self._held = mmap(-1, workers * _ENTRY)
        self._list = os.memfd_create("images")
        with os.fdopen(os.dup(self._list), "wb") as file:
            for number in range(1, len(self._images) + 1):
                file.write(number.to_bytes(_ENTRY, "little"))
        os.lseek(self._list, 0, os.SEEK_SET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        os.close(self._list)

    def take(self, worker: int) -> str | None:
        """The next image, for this worker to hold; None once there is none, or none is to be begun."""
        entry = b"" if self.stopped else os.read(self._list, _ENTRY)
        self._held[worker * _ENTRY : (worker + 1) * _ENTRY] = entry or bytes(_ENTRY)
        return self._images[int.from_bytes(entry, "little") - 1] if entry else None

    def held_by(self, worker: int) -> str | None:
        """The image that a worker took last; None where it took none, or found that there is none left."""
        number = int.from_bytes(self._held[worker * _ENTRY : (worker + 1) * _ENTRY], "little")
        return self._images[number - 1] if number else None

    def stop(self) -> None:
        """Have no image, and no step of one, begun any more."""
        self._stop[0] = 1

    @property
    def stopped(self) -> bool:
        """Whether that was said."""
        return bool(self._stop[0])
