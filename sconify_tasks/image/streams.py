"""Byte streams of layers: parts of files, forward-only seeking, decompression with a bound."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterable
from typing import BinaryIO, cast

from sconify_tasks.errors import UsageError

CHUNK = 1 << 20
MAX_LAYER = 256 << 30  # uncompressed; what is larger is a decompression bomb
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_WINDOW = 128 << 20


class Slice(io.RawIOBase):
    """`length` bytes at `offset` of an open file, by pread: many slices of one descriptor do not disturb each other."""

    def __init__(self, fd: int, offset: int, length: int) -> None:
        super().__init__()
        self._fd, self._at, self._end = fd, offset, offset + length

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read up to the end of the slice; a file that ends earlier is damaged."""
        view = memoryview(cast("bytearray", buffer))[: max(self._end - self._at, 0)]
        count = os.preadv(self._fd, [view], self._at) if view else 0
        if view and not count:
            msg = "a layer file ends too early"
            raise UsageError(msg, hint="pull or build the image again")
        self._at += count
        return count


class Chunks(io.RawIOBase):
    """The SDK's iterator of byte strings as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        data = bytes(self._rest if size < 0 else self._rest[:size])
        self._rest = self._rest[len(data) :]
        return data


def part(fd: int, offset: int, length: int) -> BinaryIO:
    """Content of a layer member, buffered."""
    return cast("BinaryIO", io.BufferedReader(Slice(fd, offset, length), min(CHUNK, max(length, 1))))


class LatePart(io.RawIOBase):
    """Content that is opened when it is first read: whoever passes over it, pays nothing for it."""

    def __init__(self, open_: Callable[[], BinaryIO]) -> None:
        super().__init__()
        self._open, self._content = open_, cast("BinaryIO | None", None)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """As of any file."""
        if self._content is None:
            self._content = self._open()
        return self._content.read(size)


class Forward(io.RawIOBase):
    """A stream as a file that seeks forwards only, with a bound and the SHA-256 of all that passed, unless not wanted."""

    def __init__(self, source: BinaryIO, *, limit: int = MAX_LAYER, hashed: bool = True) -> None:
        super().__init__()
        self._source, self._limit = source, limit
        self._at = 0
        self._hashed, self._sha256 = hashed, hashlib.sha256()

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes: forwards."""
        return True

    def tell(self) -> int:
        """Bytes that have passed."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Read and forget up to `offset`; the end of the stream stops it, as it stops a file's reader."""
        if whence != os.SEEK_SET or offset < self._at:
            msg = "a layer archive wants to go backwards"
            raise UsageError(msg, hint="pull or build the image again")
        while self._at < offset and self.read(min(CHUNK, offset - self._at)):
            pass
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes unless the stream ends before; all of the rest for -1."""
        pieces = []
        while size and (data := self._read_some(CHUNK if size < 0 else min(size, CHUNK))):
            pieces.append(data)
            size -= len(data) if size > 0 else 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def digest(self) -> str:
        """SHA-256 (`sha256:HEX`) of everything that was read or skipped so far."""
        return "sha256:" + self._sha256.hexdigest()

    def _read_some(self, size: int) -> bytes:
        data = self._source.read(size)
        self._at += len(data)
        if self._at > self._limit:
            msg = f"a layer is larger than {self._limit} bytes when uncompressed"
            raise UsageError(msg, hint="use an image with smaller layers")
        if self._hashed:
            self._sha256.update(data)
        return data


def drain(stream: Forward) -> None:
    """Read to the end."""
    while stream.read(CHUNK):
        pass


def compression(file: BinaryIO) -> str:
    """Tell how a seekable blob is compressed, by its first bytes: `gzip`, `zstd` or "" for a plain one."""
    magic = file.read(4)
    file.seek(-len(magic), os.SEEK_CUR)
    return "gzip" if magic.startswith(_GZIP) else "zstd" if magic == _ZSTD else ""


def uncompressed(file: BinaryIO) -> BinaryIO:
    """Open the layer tar inside a seekable blob: gzip, zstd or plain."""
    kind = compression(file)
    if kind == "gzip":
        import gzip

        return cast("BinaryIO", _Decompressed(cast("BinaryIO", gzip.GzipFile(fileobj=file)), zlib.error))
    if kind == "zstd":
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(file, read_across_frames=True)
        return cast("BinaryIO", _Decompressed(cast("BinaryIO", reader), zstandard.ZstdError))
    return file


class _Decompressed(io.RawIOBase):
    """Turns what a decompressor raises into an error for people."""

    def __init__(self, source: BinaryIO, damage: type[Exception]) -> None:
        super().__init__()
        self._source, self._damage = source, damage

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._source.read(size)
        except (self._damage, EOFError, OSError) as error:
            msg = f"damaged compressed layer: {error}"
            raise UsageError(msg, hint="pull or build the image again") from error
