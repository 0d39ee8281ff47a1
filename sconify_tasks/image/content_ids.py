"""Content ids of a folder's files: large ones are read on threads, and who else wants their bytes sees them there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Self, TypeVar

from sconify_tasks.ahead import Ahead, Promise, ThreadBuffer
from sconify_tasks.image.folder import Seen
from sconify_tasks.image.source import ContentWatcher, TakeBlock

# In the processor's cache while it is hashed twice; a multiple of the chunks that watchers hash.
_BLOCK = 256 << 10
_LARGE = 64 << 10  # a smaller file costs less than to hand it over
_FEW = 4 << 20  # so many bytes are read before threads are worth their start
T = TypeVar("T")


class ContentIds:
    """Takes keyed BLAKE3 of files that were seen. A context manager: at its end no thread is left, and no file open."""

    def __init__(self, key: bytes, watcher: ContentWatcher | None) -> None:
        self._key, self._watcher, self._buffer = key, watcher, ThreadBuffer(_BLOCK)
        self._ahead: Ahead[bytes] = Ahead()
        self._alone = _FEW

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead.close()

    def take(self, seen: Seen) -> bytes | Promise[bytes]:
        """Read a file, of which nothing but its path must outlive this call: it is open already."""
        descriptor = seen.open()
        take = self._watcher.watch(seen.path) if self._watcher is not None else None
        size = seen.stat.st_size
        if size < _LARGE or size <= self._alone:
            self._alone -= size
            return self._read(seen, descriptor, take)
        return self._ahead.do(partial(self._read, seen, descriptor, take), drop=partial(os.close, descriptor))

    def in_order(self, items: Iterable[tuple[T, bytes | Promise[bytes]]]) -> Iterator[tuple[T, bytes]]:
        """Each item with its content id, in the order in which they come; a few files are read ahead."""
        return self._ahead.in_order(items)

    def _read(self, seen: Seen, descriptor: int, take: TakeBlock | None) -> bytes:
        from blake3 import blake3

        hasher, left = blake3(key=self._key), seen.stat.st_size
        try:
            while left and (length := _fill(descriptor, self._buffer.view[: min(_BLOCK, left)])):
                block = self._buffer.view[:length]
                hasher.update(block)
                if take is not None:
                    take(block)
                left -= length
            seen.check(descriptor)
        finally:
            os.close(descriptor)
        return hasher.digest()


def _fill(descriptor: int, view: memoryview) -> int:
    """Read until the view is full or the file ends."""
    got = 0
    while got < len(view) and (count := os.readv(descriptor, [view[got:]])):
        got += count
    return got
