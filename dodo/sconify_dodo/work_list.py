"""The images of a run, for its workers to take one after the other, in memory that they share with it from their fork on."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from mmap import mmap
from types import TracebackType
from typing import Self

_NUMBER = 4
"""Bytes of a number: first of how many images were taken, then, for each worker, the image that it holds, counted from 1."""


class WorkList:
    """Each image is handed out once, to one of `workers`. To be made before they are forked."""

    def __init__(self, images: Iterable[str], *, workers: int) -> None:
        self._images = tuple(images)
        self._stop = mmap(-1, 1)
        self._numbers = mmap(-1, (1 + workers) * _NUMBER)
        self._lock = os.memfd_create("images")  # nothing but a lock, which the kernel takes back from a process that dies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        os.close(self._lock)

    def take(self, worker: int) -> str | None:
        """The next image, for this worker to hold; None once there is none, or none is to be begun."""
        with self._locked():
            taken = self._number(0)
            if self.stopped or taken == len(self._images):
                self._set(1 + worker, 0)
                return None
            self._set(0, taken + 1)  # first: one that dies here has lost an image, and not had it made twice
            self._set(1 + worker, taken + 1)
        return self._images[taken]

    def held_by(self, worker: int) -> str | None:
        """The image that a worker took last; None where it took none, or found that there is none left."""
        number = self._number(1 + worker)
        return self._images[number - 1] if number else None

    def stop(self) -> None:
        """Have no image, and no step of one, begun any more."""
        self._stop[0] = 1

    @property
    def stopped(self) -> bool:
        """Whether that was said."""
        return bool(self._stop[0])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _number(self, which: int) -> int:
        return int.from_bytes(self._numbers[which * _NUMBER : (which + 1) * _NUMBER], "little")

    def _set(self, which: int, number: int) -> None:
        self._numbers[which * _NUMBER : (which + 1) * _NUMBER] = number.to_bytes(_NUMBER, "little")
