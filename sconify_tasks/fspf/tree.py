"""A tree: what the `files` and `libraries` steps found, with keyed content ids (docs/formats.md section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

from sconify_tasks.fspf.entries import ManifestEntry, decode_contents, decode_entries, encode_entries
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.reading import Cursor
from sconify_tasks.fspf.regions import Protection

MAGIC = b"SCONTREE"
VERSION = 1
CONTENT_ID_INFO = b"sconify/content-id/1"
_HEADER = Struct("<8sI")


def encode_tree(entries: Iterable[ManifestEntry]) -> bytes:
    """Sort and encode; ValueError for a path given twice or an entry with a class."""
    ordered = sorted(entries, key=lambda entry: entry.path)
    if any(entry.protection is not Protection.NONE for entry in ordered):
        raise ValueError("entries of a tree have no class")
    return _HEADER.pack(MAGIC, VERSION) + encode_entries(ordered)


def decode_tree(data: bytes) -> tuple[ManifestEntry, ...]:
    """Return the entries, sorted by path; MalformedError for anything but exactly one tree."""
    cursor = _begun(data)
    entries = decode_entries(cursor)
    cursor.finish()
    for entry in entries:
        if entry.protection:
            raise MalformedError("class", f"{entry.path[:200]!r} has a class, which entries of a tree have not")
    return entries


def contents_of(data: bytes) -> dict[bytes, bytes]:
    """Keyed content ids by path, of a tree that this program made: for who needs nothing else of it."""
    return decode_contents(_begun(data))


def _begun(data: bytes) -> Cursor:
    cursor = Cursor(data)
    magic, version = cursor.unpack(_HEADER)
    if magic != MAGIC:
        raise MalformedError("magic", "this is not a tree")
    if version != VERSION:
        raise MalformedError("version", f"tree version {version} is unknown: this program reads version {VERSION}")
    return cursor
