"""A run of bytes in an open file: a blob of a layout, a member of an archive, an unpacked layer.

Read by pread: any number of readers of one extent do not disturb each other.
"""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Struct

from sconify_tasks.errors import VerificationError
from sconify_tasks.image.manifest import HINT, Blob, not_what_it_says
from sconify_tasks.image.model import Layer, Sha256
from sconify_tasks.image.streams import CHUNK, Forward, Slice, drain, part, uncompressed

# Archives are read with seeks over contents: a larger buffer would be filled in vain.
_BUFFER = 32 << 10


class Extent(Struct, frozen=True, kw_only=True):
    """`size` bytes from `start` of a file that this extent alone closes."""

    file: BinaryIO
    start: int
    size: int

    @classmethod
    def whole(cls, file: BinaryIO) -> Extent:
        """All of a file."""
        return cls(file=file, start=0, size=os.fstat(file.fileno()).st_size)

    def open(self) -> BinaryIO:
        """A seekable stream of its own position over the bytes."""
        return cast("BinaryIO", io.BufferedReader(Window(self.file.fileno(), self.start, self.size), _BUFFER))

    def stream(self) -> BinaryIO:
        """Such a stream that closes the file with itself: it takes the extent over."""
        return cast("BinaryIO", _Owning(self.open(), self.file))

    def part(self, offset: int, size: int) -> BinaryIO:
        """Open some of the bytes."""
        return part(self.file.fileno(), self.start + offset, size)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def layer(self, diff_id: Sha256) -> Layer:
        """Give the bytes as a layer in a file of its own, valid until this extent is closed."""
        file = self.file
        assert self.start == 0
        return Layer(diff_id=diff_id, size=self.size, path=Path(f"/proc/self/fd/{file.fileno()}"))

    def alone(self) -> Extent:
        """Return itself where it is a whole file, else a copy that is; the caller closes the copy."""
        if self.start == 0 and self.size == os.fstat(self.file.fileno()).st_size:
            return self
        copy = cast("BinaryIO", tempfile.TemporaryFile(prefix="sconify-"))  # noqa: SIM115
        try:
            copy_bytes(self, copy)
        except BaseException:
            copy.close()
            raise
        return Extent(file=copy, start=0, size=self.size)


class _Owning(io.BufferedReader):
    """A stream that closes the file below it, too."""

    def __init__(self, stream: BinaryIO, file: BinaryIO) -> None:
        super().__init__(cast("io.BufferedReader", stream).detach(), _BUFFER)
        self._file = file

    def close(self) -> None:
        super().close()
        self._file.close()


class Window(Slice):
    """A slice that seeks."""

    def __init__(self, fd: int, offset: int, length: int) -> None:
        super().__init__(fd, offset, length)
        self._start, self._length = offset, length

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the window; beyond its end nothing is read."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at - self._start, os.SEEK_END: self._length}[whence]
        self._at = self._start + max(0, origin + offset)
        return self._at - self._start

    def tell(self) -> int:
        """Bytes from the window's start."""
        return self._at - self._start


def unpack(extent: Extent, *, blob: Blob | None, diff_id: Sha256, what: str) -> Extent:
    """Open a layer uncompressed, after verifying the blob's digest and size (where one is given) and the diff id.

    Takes the extent over. A compressed layer comes out in a nameless temporary file: not even a killed process leaves it
    behind. VerificationError where a digest is not what was promised.
    """
    spill: BinaryIO | None = None
    try:
        if blob is not None:
            _verify(extent, blob)
        stream = extent.open()
        tar = uncompressed(stream)
        if tar is stream:
            if blob is None or blob.digest != diff_id:
                _verify_diff_id(Forward(tar), diff_id, what)
            return extent  # the very file that was verified, not another that has its name by now
        spill = cast("BinaryIO", tempfile.TemporaryFile(prefix="sconify-"))  # noqa: SIM115
        _verify_diff_id(Forward(tar), diff_id, what, into=spill)
        spill.flush()
        unpacked = Extent.whole(spill)
    except BaseException:
        extent.close()
        if spill is not None:
            spill.close()
        raise
    extent.close()
    return unpacked


def copy_bytes(extent: Extent, out: BinaryIO) -> None:
    """Copy to the current position of a real file, inside the kernel where it can; by reflink where the file system can."""
    out.flush()
    at, end = extent.start, extent.start + extent.size
    with suppress(OSError):
        while at < end and (count := os.copy_file_range(extent.file.fileno(), out.fileno(), min(end - at, 1 << 30), at)):
            at += count
    rest = extent.part(at - extent.start, end - at)
    while data := rest.read(CHUNK):
        out.write(data)
    out.flush()


def _verify(extent: Extent, blob: Blob) -> None:
    raw = Forward(extent.open(), limit=extent.size)
    drain(raw)
    if raw.tell() != blob.size or raw.digest() != blob.digest:
        raise not_what_it_says(blob)


def _verify_diff_id(tar: Forward, diff_id: Sha256, what: str, *, into: BinaryIO | None = None) -> None:
    while data := tar.read(CHUNK):
        if into is not None:
            into.write(data)
    if tar.digest() != diff_id:
        msg = f"{what} unpacks to {tar.digest()}, and the config says {diff_id}"
        raise VerificationError(msg, hint=HINT)
