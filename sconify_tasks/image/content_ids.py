"""Content ids of a folder's files: large ones are read on threads, and who else wants their bytes sees them there."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from threading import local
from typing import TYPE_CHECKING, Self, TypeVar

from sconify_cache.digest import Digest
from sconify_tasks.image.folder import Seen
from sconify_tasks.image.source import ContentWatcher, TakeBlock

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_THREADS = 2
# In the processor's cache while it is hashed twice; a multiple of the chunks that watchers hash.
_BLOCK = 256 << 10
_LARGE = 64 << 10  # a smaller file costs less than to hand it over
_FEW = 4 << 20  # so many bytes are read before threads are worth their start
_WAITING = 64  # open descriptors
T = TypeVar("T")


class _Buffer(local):
    """One for each thread."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_BLOCK))


class ContentIds:
    """Takes keyed BLAKE3 of files that were seen. A context manager: at its end no thread is left."""

    def __init__(self, key: bytes, watcher: ContentWatcher | None) -> None:
        self._key, self._watcher, self._buffer = key, watcher, _Buffer()
        self._pool: ThreadPoolExecutor | None = None
        self._alone = _FEW

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def take(self, seen: Seen) -> Digest | Future[Digest]:
        """Read a file, of which nothing but its path must outlive this call: it is open already."""
        descriptor = seen.open()
        take = self._watcher.watch(seen.path) if self._watcher is not None else None
        size = seen.stat.st_size
        if size < _LARGE or size <= self._alone:
            self._alone -= size
            return self._read(seen, descriptor, take)
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(_THREADS)
        return self._pool.submit(self._read, seen, descriptor, take)

    def _read(self, seen: Seen, descriptor: int, take: TakeBlock | None) -> Digest:
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
        return Digest(hasher.hexdigest())


def in_order(items: Iterable[tuple[T, bytes | Future[Digest]]]) -> Iterator[tuple[T, bytes]]:
    """Each item with what was promised for it, in the order in which they come; a few are ahead."""
    waiting: deque[tuple[T, bytes | Future[Digest]]] = deque()
    for item in items:
        waiting.append(item)
        while waiting and (len(waiting) > _WAITING or isinstance(waiting[0][1], bytes) or waiting[0][1].done()):
            yield _kept(*waiting.popleft())
    while waiting:
        yield _kept(*waiting.popleft())


def _kept(item: T, promised: bytes | Future[Digest]) -> tuple[T, bytes]:
    return item, promised if isinstance(promised, bytes) else bytes.fromhex(promised.result())


def _fill(descriptor: int, view: memoryview) -> int:
    """Read until the view is full or the file ends."""
    got = 0
    while got < len(view) and (count := os.readv(descriptor, [view[got:]])):
        got += count
    return got
