"""A stream for parsers that were not written for hostile input: it ends their loops and their large allocations."""

from __future__ import annotations

import io
from typing import BinaryIO

MAX_READS = 200_000
MAX_BYTES = 64 << 20


class BudgetError(Exception):
    """A parser asked for more than any honest file needs."""


class BoundedStream(io.RawIOBase):
    """Reads of `inner`, clipped to its end, counted, and with `blanked` ranges read as zeros.

    A parser that loops must read; so a limit on the number and the bytes of reads is a limit on its time. Asking a
    buffered file for 2^60 bytes allocates them first; hence the clipping.
    """

    def __init__(self, inner: BinaryIO, *, blanked: tuple[range, ...] = ()) -> None:
        super().__init__()
        self._inner = inner
        self._blanked = blanked
        self._length = inner.seek(0, io.SEEK_END)
        self._position = 0
        self._reads = MAX_READS
        self._bytes = MAX_BYTES

    def readable(self) -> bool:
        """Return True: that is all it is for."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; beyond the end is allowed and reads nothing there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; BudgetError when the budget is spent."""
        start = self._position
        left = max(0, self._length - start)
        length = left if size < 0 else min(size, left)
        self._reads -= 1
        self._bytes -= length
        if self._reads < 0 or self._bytes < 0:
            raise BudgetError
        if not length:
            return b""
        self._inner.seek(start)
        data = self._inner.read(length)
        self._position = start + len(data)
        for blank in self._blanked:
            first, last = max(blank.start, start), min(blank.stop, start + len(data))
            if first < last:
                data = data[: first - start] + bytes(last - first) + data[last - start :]
        return data
