"""Copies between files, inside the kernel where both are plain files: reflinks where the file system has them."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import BinaryIO

from sconify_tasks.ahead import ThreadBuffer
from sconify_tasks.errors import StoreError

_BUFFER = 1 << 18
_BLOCK = 4096
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


def copy_range(source: BinaryIO, out: BinaryIO, size: int) -> None:
    """Copy exactly `size` bytes from where `source` stands to where `out` stands; StoreError where there are fewer."""
    left = size
    descriptor = _descriptor(source)
    if descriptor is not None and is_plain_file(out):
        out.flush()
        left = _copy_in_kernel(descriptor, out.fileno(), source.tell(), out.tell(), size)
        source.seek(size - left, io.SEEK_CUR)
        out.seek(size - left, io.SEEK_CUR)
    while left:
        block = source.read(min(_BUFFER, left))
        if not block:
            raise _shorter()
        out.write(block)
        left -= len(block)


class Copier:
    """Copies whole files to places in one plain file, on any thread; `out` holds nothing that is still to be written."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._buffer = out.fileno(), ThreadBuffer(_BUFFER)

    def copy(self, source: int, offset: int, size: int) -> None:
        """Copy a file of `size` bytes to `offset`; StoreError where it is shorter.

        A reflink needs whole blocks. Elsewhere a copy inside the kernel, page by page, is slower than one through a buffer.
        """
        left = size if offset % _BLOCK else _copy_in_kernel(source, self._out, 0, offset, size)
        while left:
            count = os.preadv(source, [self._buffer.view[: min(left, _BUFFER)]], size - left)
            if not count:
                raise _shorter()
            self._write(self._buffer.view[:count], offset + size - left)
            left -= count

    def _write(self, view: memoryview, offset: int) -> None:
        try:
            while view:
                count = os.pwrite(self._out, view, offset)
                view, offset = view[count:], offset + count
        except OSError as error:
            raise _failed(error) from error


def _shorter() -> StoreError:
    return StoreError("a file became shorter while it was being copied", hint="build again when nothing writes to it")


def _failed(error: OSError) -> StoreError:
    return StoreError(f"copying the payload failed: {error.strerror}", hint="look for a full disk")


def _copy_in_kernel(source: int, out: int, source_offset: int, out_offset: int, left: int) -> int:
    """Copy as much as the kernel will; return how many bytes are left."""
    while left:
        try:
            copied = os.copy_file_range(source, out, left, source_offset, out_offset)
        except OSError as error:
            if error.errno in _NOT_HERE:
                return left
            raise _failed(error) from error
        if not copied:
            return left
        source_offset, out_offset, left = source_offset + copied, out_offset + copied, left - copied
    return left


def is_plain_file(out: BinaryIO) -> bool:
    """Whether what is written to `out` goes to a file as it is."""
    # The very classes that open() returns: a wrapper that hashes what is written must see every byte.
    return type(out) in (io.BufferedWriter, io.BufferedRandom, io.FileIO) and stat.S_ISREG(os.fstat(out.fileno()).st_mode)


def _descriptor(source: BinaryIO) -> int | None:
    """Of a stream that is a file, or the whole of one; part of a file has none of its own."""
    try:
        return source.fileno()
    except OSError:
        return None
