"""Copies ranges between files, inside the kernel where both are plain files: reflinks where the file system has them."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import BinaryIO

from sconify_tasks.errors import StoreError

_BUFFER = 1 << 17
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


def copy_range(source: BinaryIO, out: BinaryIO, size: int) -> None:
    """Copy exactly `size` bytes from where `source` stands to where `out` stands; StoreError where there are fewer."""
    left = size
    descriptor = _descriptor(source)
    if descriptor is not None and _is_plain_file(out):
        out.flush()
        left = _copy_in_kernel(descriptor, out.fileno(), source.tell(), out.tell(), size)
        source.seek(size - left, io.SEEK_CUR)
        out.seek(size - left, io.SEEK_CUR)
    while left:
        block = source.read(min(_BUFFER, left))
        if not block:
            raise StoreError("a file became shorter while it was being copied", hint="build again when nothing writes to it")
        out.write(block)
        left -= len(block)


def _copy_in_kernel(source: int, out: int, source_offset: int, out_offset: int, left: int) -> int:
    """Copy as much as the kernel will; return how many bytes are left."""
    while left:
        try:
            copied = os.copy_file_range(source, out, left, source_offset, out_offset)
        except OSError as error:
            if error.errno in _NOT_HERE:
                return left
            raise StoreError(f"copying the payload failed: {error.strerror}", hint="look for a full disk") from error
        if not copied:
            return left
        source_offset, out_offset, left = source_offset + copied, out_offset + copied, left - copied
    return left


def _is_plain_file(out: BinaryIO) -> bool:
    # The very classes that open() returns: a wrapper that hashes what is written must see every byte.
    return type(out) in (io.BufferedWriter, io.BufferedRandom, io.FileIO) and stat.S_ISREG(os.fstat(out.fileno()).st_mode)


def _descriptor(source: BinaryIO) -> int | None:
    """Of a stream that is a file, or the whole of one; part of a file has none of its own."""
    try:
        return source.fileno()
    except OSError:
        return None
