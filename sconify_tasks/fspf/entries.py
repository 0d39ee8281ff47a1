"""Entries: one path with its metadata, as manifests and trees hold it (docs/formats.md sections 2 and 3)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntFlag

from msgspec import Struct

from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.reading import U16, U32, Cursor
from sconify_tasks.fspf.regions import MAX_PATH, Protection, check_path
from sconify_tasks.image.entry import Entry, Kind

CONTENT_SIZE = 32
_SECOND = 1_000_000_000
_HEAD = struct.Struct("<BBHIIIqI")
_FILE = struct.Struct("<Q32s")
_WHOLE_FILE = struct.Struct(_HEAD.format + _FILE.format[1:] + "H")
"""What a file's record has behind its path, the number of its attributes included: almost every record is one."""
_DEVICE = struct.Struct("<II")
_MODE_BITS = 0o7777
_MAX_FILE = 1 << 60
_KINDS = {int(kind): kind for kind in Kind}
_CLASSES = {int(protection): protection for protection in Protection}


class Flag(IntFlag):
    """Flags of an entry; their meaning is docs/formats.md section 2."""

    STORED_X = 1
    CLOSURE = 2
    MAIN = 4
    PINNED = 8


NO_FLAGS = Flag(0)
_FLAGS = tuple(Flag(bits) for bits in range(16))


class ManifestEntry(Struct, frozen=True, kw_only=True):
    """One path. `content` is 32 bytes for files: SHA-256 in a manifest, the keyed content id in a tree.

    `meta.hardlink` is not part of the format: every name of a file is an entry of its own.
    """

    meta: Entry
    protection: Protection = Protection.NONE
    flags: Flag = NO_FLAGS
    content: bytes = b""

    @property
    def path(self) -> bytes:
        """The absolute path."""
        return self.meta.path


def encode_entries(entries: Sequence[ManifestEntry]) -> bytes:
    """Count and entries, which must be sorted by path and unique (ValueError: the caller's mistake)."""
    parts = [U32.pack(len(entries))]
    previous = b""
    for entry in entries:
        path = entry.meta.path
        if path <= previous:
            raise ValueError(f"entries are not sorted by path, or twice: {path!r} after {previous!r}")
        previous = path
        _encode(entry, parts)
    return b"".join(parts)


def decode_entries(cursor: Cursor) -> tuple[ManifestEntry, ...]:
    """Take count and entries; MalformedError for every value out of range and every order but the sorted one."""
    (count,) = cursor.unpack(U32)
    entries: list[ManifestEntry] = []
    previous = b""
    for _ in range(count):
        entry = _decode(cursor)
        path = entry.meta.path
        if path <= previous:
            check_order(previous, path)
        previous = path
        entries.append(entry)
    return tuple(entries)


def check_order(previous: bytes, following: bytes) -> None:
    """Raise unless `following` sorts after `previous`."""
    if following == previous:
        raise MalformedError("duplicate", f"two records have the same name: {following[:200]!r}")
    if following < previous:
        raise MalformedError("unsorted", f"{following[:200]!r} comes after {previous[:200]!r}")


def _encode(entry: ManifestEntry, parts: list[bytes]) -> None:
    meta = entry.meta
    check_path(meta.path)
    head = (meta.kind, entry.protection, entry.flags, meta.mode, meta.uid, meta.gid, *divmod(meta.mtime, _SECOND))
    parts += (U16.pack(len(meta.path)), meta.path)
    if meta.kind is Kind.FILE:
        if len(entry.content) != CONTENT_SIZE:
            raise ValueError(f"the entry of file {meta.path!r} has no content digest")
        parts.append(_WHOLE_FILE.pack(*head, meta.size, entry.content, len(meta.xattrs)))
    else:
        parts += (_HEAD.pack(*head), _encode_body(meta), U16.pack(len(meta.xattrs)))
    if not meta.xattrs:
        return
    for name, value in sorted(meta.xattrs):
        parts += (U16.pack(len(name)), name, U32.pack(len(value)), value)


def _encode_body(meta: Entry) -> bytes:
    """What only this kind has, if it is no file."""
    if meta.kind is Kind.SYMLINK:
        return U16.pack(len(meta.target)) + meta.target
    return _DEVICE.pack(*meta.rdev) if meta.kind in (Kind.CHAR, Kind.BLOCK) else b""


def decode_contents(cursor: Cursor) -> dict[bytes, bytes]:
    """Content by path, of files alone: as `decode_entries` finds it, of bytes that this program wrote and nobody changed."""
    (count,) = cursor.unpack(U32)
    contents: dict[bytes, bytes] = {}
    for _ in range(count):
        path = cursor.take_prefixed(U16)
        if cursor.following == Kind.FILE:
            *_, content, attributes = cursor.unpack(_WHOLE_FILE)
            contents[path] = content
        else:
            number, *_ = cursor.unpack(_HEAD)
            _decode_body(cursor, path, _KINDS[number])
            (attributes,) = cursor.unpack(U16)
        for _ in range(attributes):
            cursor.take_prefixed(U16)
            cursor.take_prefixed(U32)
    return contents


def _decode(cursor: Cursor) -> ManifestEntry:
    path = cursor.take_prefixed(U16)
    check_path(path)
    size, content, target, rdev, attributes = 0, b"", b"", (0, 0), -1
    if cursor.following == Kind.FILE:
        fields = cursor.unpack(_WHOLE_FILE)
        number, protection, flags, mode, uid, gid, seconds, nanoseconds, size, content, attributes = fields
    else:
        number, protection, flags, mode, uid, gid, seconds, nanoseconds = cursor.unpack(_HEAD)
    kind = _KINDS.get(number)
    if kind is None:
        raise MalformedError("kind", f"{path[:200]!r} has the unknown kind {number}")
    if protection not in _CLASSES:
        raise MalformedError("class", f"{path[:200]!r} has the unknown class {protection}")
    if flags >= len(_FLAGS):
        raise MalformedError("flags", f"{path[:200]!r} has unknown flags: {flags:#x}")
    if mode > _MODE_BITS or nanoseconds >= _SECOND:
        raise MalformedError("range", f"{path[:200]!r} has a mode or a time out of range")
    if size > _MAX_FILE:
        raise MalformedError("range", f"{path[:200]!r} has a size out of range")
    if attributes < 0:
        target, rdev = _decode_body(cursor, path, kind)
        (attributes,) = cursor.unpack(U16)
    meta = Entry(
        path=path,
        kind=kind,
        mode=mode,
        uid=uid,
        gid=gid,
        mtime=seconds * _SECOND + nanoseconds,
        size=size,
        target=target,
        rdev=rdev,
        xattrs=_decode_xattrs(cursor, attributes) if attributes else (),
    )
    return ManifestEntry(meta=meta, protection=_CLASSES[protection], flags=_FLAGS[flags], content=content)


def _decode_body(cursor: Cursor, path: bytes, kind: Kind) -> tuple[bytes, tuple[int, int]]:
    """Take what only this kind has, if it is no file: link target or device number."""
    if kind is Kind.SYMLINK:
        target = cursor.take_prefixed(U16)
        if not 0 < len(target) <= MAX_PATH or b"\0" in target:
            raise MalformedError("target", f"{path[:200]!r} is a symlink without a proper target")
        return target, (0, 0)
    if kind in (Kind.CHAR, Kind.BLOCK):
        major, minor = cursor.unpack(_DEVICE)
        return b"", (major, minor)
    return b"", (0, 0)


def _decode_xattrs(cursor: Cursor, count: int) -> tuple[tuple[bytes, bytes], ...]:
    xattrs: list[tuple[bytes, bytes]] = []
    previous = b""
    for _ in range(count):
        name = cursor.take_prefixed(U16)
        if not name or b"\0" in name:
            raise MalformedError("xattr", "an extended attribute has no proper name")
        check_order(previous, name)
        previous = name
        xattrs.append((name, cursor.take_prefixed(U32)))
    return tuple(xattrs)
