"""Writes layer tars: pax format (POSIX.1-2001), deterministic, hashed in the same pass; about five times tarfile's speed.

Equal entries give equal bytes: no clock, no names of users, a fixed order. What a reader could take for something else
(a whiteout, a path outside the root) is refused here, so that no layer of ours can say it by accident.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Struct
from msgspec.structs import replace

from sconify_tasks.errors import SconifyError, UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.model import Sha256
from sconify_tasks.image.paths import check_path, shown
from sconify_tasks.kernel_copy import copy_range

BLOCK = 512
_CHUNK = 1 << 17
_IN_KERNEL = 1 << 16  # a smaller range costs less with the header before it, in one write
_ZEROS = bytes(BLOCK)
_OCTAL7 = 0o7777777
_OCTAL11 = 0o77777777777
_NAME = 100
_SECOND = 1_000_000_000
_TYPE = {Kind.FILE: b"0", Kind.DIR: b"5", Kind.SYMLINK: b"2", Kind.CHAR: b"3", Kind.BLOCK: b"4", Kind.FIFO: b"6"}


class FileRange(Struct, frozen=True, kw_only=True):
    """`length` bytes at `offset` of a file: unchanged bytes are copied from where they lie."""

    path: Path
    offset: int = 0
    length: int


Content = bytes | FileRange | BinaryIO | None


class WrittenTar(Struct, frozen=True, kw_only=True):
    """What was written: its diff id, its length."""

    diff_id: Sha256
    size: int


def order_key(entry: Entry) -> tuple[bool, bytes]:
    """Sort by this: bytewise by path, so that parents come first; hard links last, because their target must be there."""
    return bool(entry.hardlink), entry.path


def write_tar(items: Iterable[tuple[Entry, Content]], out: BinaryIO) -> WrittenTar:
    """Write a whole layer. `items` must come in `order_key` order."""
    writer = TarWriter(out)
    try:
        for entry, content in items:
            writer.add(entry, content)
        return writer.close()
    finally:
        writer.release()


class TarWriter:
    """One layer being written to a binary stream that need not be seekable.

    Where its digest is taken later (`hashed=False`), `out` is a file, and large ranges are copied to it inside the kernel.
    """

    def __init__(self, out: BinaryIO, *, hashed: bool = True) -> None:
        self._out = out
        self._sha256 = hashlib.sha256() if hashed else None
        self._buffer = bytearray()
        self._size = 0
        self._last: tuple[bool, bytes] = (False, b"")
        self._files: dict[bytes, Entry] = {}
        self._source: tuple[Path, BinaryIO] | None = None

    def add(self, entry: Entry, content: Content = None) -> int:
        """Append one entry and return the offset of its content in the tar.

        Content of a file has exactly `entry.size` bytes. Entries come in ascending `order_key`; a hard link's target is
        a file of this tar. ValueError for a caller that breaks this, UsageError for what no layer can express.
        """
        key = order_key(entry)
        if key <= self._last:
            msg = f"entries out of order or twice: {shown(entry.path)}"
            raise ValueError(msg)
        if entry.hardlink and (entry.hardlink not in self._files or entry.path in self._files):
            msg = f"hard link without an earlier target: {shown(entry.path)}"
            raise ValueError(msg)
        self._last = key
        if entry.hardlink:
            # engines apply a link's header to the inode that it shares, so both must say the same
            entry = replace(self._files[entry.hardlink], path=entry.path, hardlink=entry.hardlink)
        self._write(header(entry))
        if entry.kind is Kind.FILE and not entry.hardlink:
            self._files[entry.path] = entry
            return self._add_content(entry, content)
        return self._size

    def close(self) -> WrittenTar:
        """Write the end of the archive and return the digests; the stream stays the caller's."""
        size = self.end()
        assert self._sha256 is not None
        return WrittenTar(diff_id=Sha256("sha256:" + self._sha256.hexdigest()), size=size)

    def end(self) -> int:
        """Write the end of the archive and return its length: `close` of a writer that does not hash."""
        self.release()
        self._write(_ZEROS * 2)
        self._flush()
        return self._size

    def _add_content(self, entry: Entry, content: Content) -> int:
        start = self._size
        if isinstance(content, bytes):
            self._write(content)
        elif isinstance(content, FileRange):
            self._copy_range(content)
        elif content is not None:
            self._copy_stream(content, entry)
        if self._size - start != entry.size:
            msg = f"{shown(entry.path)} changed while it was read: {entry.size} bytes expected, {self._size - start} found"
            raise SconifyError(msg, hint="build again when nothing writes to it")
        self._write(_ZEROS[: -entry.size % BLOCK])
        return start

    def _copy_range(self, source: FileRange) -> None:
        file = self._opened(source.path)
        if self._sha256 is None and source.length >= _IN_KERNEL:
            self._flush()
            file.seek(source.offset)
            copy_range(file, self._out, source.length)
            self._size += source.length
            return
        descriptor, position, end = file.fileno(), source.offset, source.offset + source.length
        while position < end:
            data = os.pread(descriptor, min(_CHUNK, end - position), position)
            if not data:
                return
            self._write(data)
            position += len(data)

    def _opened(self, path: Path) -> BinaryIO:
        """A file that ranges are taken from: it stays open while they follow each other."""
        if self._source is None or self._source[0] is not path:
            self.release()
            self._source = path, cast("BinaryIO", path.open("rb", buffering=0))
        return self._source[1]

    def release(self) -> None:
        """Close the file that ranges were taken from last; for who breaks off, as `close` does it too."""
        if self._source is not None:
            self._source[1].close()
            self._source = None

    def _copy_stream(self, source: BinaryIO, entry: Entry) -> None:
        left = entry.size + 1  # one byte more, so that a file that grew is noticed
        while left and (data := source.read(min(_CHUNK, left))):
            self._write(data)
            left -= len(data)

    def _write(self, data: bytes) -> None:
        self._size += len(data)
        self._buffer += data
        if len(self._buffer) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._sha256 is not None:
            self._sha256.update(self._buffer)
        self._out.write(self._buffer)
        self._buffer.clear()


def header(entry: Entry) -> bytes:
    """Make the pax header, if one is needed, and the ustar header."""
    check_path(entry.path)
    name = entry.path[1:] or b"."
    if entry.kind is Kind.DIR:
        name += b"/"
    link = entry.hardlink[1:] if entry.hardlink else entry.target if entry.kind is Kind.SYMLINK else b""
    size = entry.size if entry.kind is Kind.FILE and not entry.hardlink else 0
    flag = b"1" if entry.hardlink else _TYPE[entry.kind]
    header = _ustar(entry, name=name, link=link, size=size, flag=flag)
    records = _records(entry, name=name, link=link, size=size)
    return _pax(records) + header if records else header


def _ustar(entry: Entry, *, name: bytes, link: bytes, size: int, flag: bytes) -> bytes:
    seconds = entry.mtime // _SECOND
    major, minor = entry.rdev if entry.kind in (Kind.CHAR, Kind.BLOCK) else (0, 0)
    if not (0 <= major <= _OCTAL7 and 0 <= minor <= _OCTAL7):
        msg = f"{shown(entry.path)}: device number {major}:{minor} does not fit in a tar header"
        raise UsageError(msg, hint="leave the device out of the image")
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        entry.mode & 0o7777,
        entry.uid if 0 <= entry.uid <= _OCTAL7 else 0,
        entry.gid if 0 <= entry.gid <= _OCTAL7 else 0,
        size if size <= _OCTAL11 else 0,
        seconds if 0 <= seconds <= _OCTAL11 else 0,
    )
    head = name[:_NAME].ljust(_NAME, b"\0") + numbers
    tail = flag + link[:_NAME].ljust(_NAME, b"\0") + b"ustar\x0000" + bytes(64) + b"%07o\0%07o\0" % (major, minor)
    total = sum(head) + sum(tail) + 8 * 0x20
    return (head + b"%06o\0 " % total + tail).ljust(BLOCK, b"\0")


def _records(entry: Entry, *, name: bytes, link: bytes, size: int) -> dict[bytes, bytes]:
    """Collect what the ustar header can't carry. Readers agree that a pax record overrides the header."""
    records: dict[bytes, bytes] = {}
    if len(name) > _NAME or not name.isascii():
        records[b"path"] = name
    if len(link) > _NAME or not link.isascii():
        records[b"linkpath"] = link
    if any(not _is_utf8(value) for value in records.values()):
        records = {b"hdrcharset": b"BINARY", **records}
    if not 0 <= entry.uid <= _OCTAL7:
        records[b"uid"] = b"%d" % entry.uid
    if not 0 <= entry.gid <= _OCTAL7:
        records[b"gid"] = b"%d" % entry.gid
    if size > _OCTAL11:
        records[b"size"] = b"%d" % size
    if entry.mtime % _SECOND or not 0 <= entry.mtime // _SECOND <= _OCTAL11:
        records[b"mtime"] = _time(entry.mtime)
    for key, value in sorted(entry.xattrs):
        if b"=" in key or b"\0" in key:
            msg = f"{shown(entry.path)}: the name of the extended attribute {shown(key)} does not fit in a tar header"
            raise UsageError(msg, hint="remove the attribute")
        records[b"SCHILY.xattr." + key] = value
    return records


def _pax(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records.items())
    entry = Entry(path=b"/", kind=Kind.FILE, mode=0o644)
    header = _ustar(entry, name=b"PaxHeaders.0/x", link=b"", size=len(body), flag=b"x")
    return header + body + _ZEROS[: -len(body) % BLOCK]


def _record(key: bytes, value: bytes) -> bytes:
    r"""`LENGTH KEY=VALUE\\n`, where LENGTH counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _time(nanoseconds: int) -> bytes:
    """Decimal seconds; the sign stands before the whole, as Go and GNU tar read it."""
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    sign = b"-" if nanoseconds < 0 else b""
    return (b"%b%d.%09d" % (sign, seconds, fraction)).rstrip(b"0").rstrip(b".")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
