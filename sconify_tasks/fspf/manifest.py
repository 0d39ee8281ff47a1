"""The manifest: regions and entries, sealed under the fspf key and pinned by its tag (docs/formats.md section 2)."""

from __future__ import annotations

import hashlib
import hmac
import struct

from msgspec import Struct

from sconify_tasks.fspf.entries import Flag, ManifestEntry, check_order, decode_entries, encode_entries
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.reading import U16, U32, Cursor
from sconify_tasks.fspf.regions import Protection, Region, Regions, check_path
from sconify_tasks.fspf.stream import MANIFEST_INFO, open_sealed, seal
from sconify_tasks.image.entry import Kind

MAGIC = b"SCONFSPF"
VERSION = 1
TAG_SIZE = 16
_HEADER = struct.Struct("<8sII32s")
_REGION = struct.Struct("<BB")


class Manifest(Struct, frozen=True, kw_only=True):
    """Regions, and entries sorted by path."""

    regions: Regions
    entries: tuple[ManifestEntry, ...]


def fspf_tag(stored: bytes) -> bytes:
    """Return the 16 bytes that pin exactly this stored manifest, even against someone who has the key."""
    return hashlib.sha256(stored).digest()[:TAG_SIZE]


def seal_manifest(fspf_key: bytes, manifest: Manifest) -> bytes:
    """Check, encode and seal: the stored form."""
    check_manifest(manifest)
    body = encode_body(manifest)
    header = _HEADER.pack(MAGIC, VERSION, 0, hashlib.sha256(body).digest())
    return header + seal(fspf_key, MANIFEST_INFO, body)


def open_manifest(fspf_key: bytes, tag: bytes, stored: bytes) -> Manifest:
    """Verify against key and tag, decrypt, decode and check; MalformedError says what is wrong."""
    cursor = Cursor(stored)
    magic, version, flags, salt = cursor.unpack(_HEADER)
    if magic != MAGIC:
        raise MalformedError("magic", "this is not a manifest")
    if version != VERSION:
        raise MalformedError("version", f"manifest version {version} is unknown: this program reads version {VERSION}")
    if flags != 0:
        raise MalformedError("flags", f"the manifest's header has unknown flags: {flags:#x}")
    if not hmac.compare_digest(fspf_tag(stored), tag):
        raise MalformedError("tag", "the manifest is not the one that the session's tag names")
    manifest = decode_body(open_sealed(fspf_key, MANIFEST_INFO, salt, stored[_HEADER.size :]))
    check_manifest(manifest)
    return manifest


def encode_body(manifest: Manifest) -> bytes:
    """Encode the body, without checking or sealing it."""
    parts = [U32.pack(len(manifest.regions.regions))]
    for region in manifest.regions.regions:
        parts += (U16.pack(len(region.path)), region.path, _REGION.pack(region.protection, 0))
    parts.append(encode_entries(manifest.entries))
    return b"".join(parts)


def decode_body(body: bytes) -> Manifest:
    """Decode a body strictly: what it says and nothing else, each value in its range."""
    cursor = Cursor(body)
    (count,) = cursor.unpack(U32)
    regions: list[Region] = []
    previous = b""
    for _ in range(count):
        region = _decode_region(cursor)
        check_order(previous, region.path)
        previous = region.path
        regions.append(region)
    checked = Regions.of(regions)
    entries = decode_entries(cursor)
    cursor.finish()
    return Manifest(regions=checked, entries=entries)


def check_manifest(manifest: Manifest) -> None:
    """Check what the runtime relies on beyond the format; MalformedError names the entry.

    A file has the class of its region, or at least is authenticated outside of them. An encrypted executable is stored
    under `/fspf/x`, and nothing else is. Every ancestor of an entry is an entry: otherwise a link planted on disk above
    it could lead elsewhere.
    """
    by_path = {entry.path: entry for entry in manifest.entries}
    checked: set[bytes] = set()
    for entry in manifest.entries:
        if entry.meta.kind is Kind.FILE:
            _check_file(manifest.regions, entry)
        elif entry.meta.kind is not Kind.SYMLINK and entry.flags & ~Flag.PINNED:
            raise MalformedError("flags", f"{entry.path[:200]!r} has flags of a file and is none")
        # An ancestor's own ancestors are checked with it, and a directory once for all that it holds.
        ancestor = entry.path.rpartition(b"/")[0]
        if ancestor and ancestor not in checked:
            _check_ancestor(manifest.regions, by_path.get(ancestor), ancestor, entry.path)
            checked.add(ancestor)


def _check_file(regions: Regions, entry: ManifestEntry) -> None:
    region = regions.protection(entry.path)
    if entry.protection is not (region or Protection.AUTHENTICATED):
        raise MalformedError("class", f"{entry.path[:200]!r} is {entry.protection.name} in a region that is {region.name}")
    executable = entry.protection is Protection.ENCRYPTED and bool(entry.meta.mode & 0o111)
    if executable is not bool(entry.flags and entry.flags & Flag.STORED_X):
        raise MalformedError("flags", f"{entry.path[:200]!r} must be STORED_X exactly if it is encrypted and executable")


def _check_ancestor(regions: Regions, found: ManifestEntry | None, ancestor: bytes, path: bytes) -> None:
    if found is None or found.meta.kind is not Kind.DIR:
        raise MalformedError("ancestor", f"{ancestor[:200]!r}, an ancestor of {path[:200]!r}, is no directory of the manifest")
    if regions.protection(ancestor) is Protection.NONE and not found.flags & Flag.PINNED:
        raise MalformedError("ancestor", f"{ancestor[:200]!r}, an ancestor of {path[:200]!r}, is not PINNED")


def _decode_region(cursor: Cursor) -> Region:
    path = cursor.take_prefixed(U16)
    check_path(path)
    protection, zero = cursor.unpack(_REGION)
    if protection not in tuple(Protection):
        raise MalformedError("class", f"the region {path[:200]!r} has the unknown class {protection}")
    if zero:
        raise MalformedError("range", f"the reserved byte of region {path[:200]!r} is not zero")
    return Region(path=path, protection=Protection(protection))
