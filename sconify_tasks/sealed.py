"""How the manifest knows a protected file: where its ciphertext lies, and the salt that its key was made from."""

from __future__ import annotations

from msgspec.structs import replace

from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.image.entry import Kind

_EXECUTE = 0o111


def flagged(entry: ManifestEntry, *, main: bytes) -> ManifestEntry:
    """Mark an executable, whose ciphertext lies under /fspf/x, and the image's binary, `main`."""
    if entry.meta.kind is not Kind.FILE:
        return entry
    if entry.path == main:
        return replace(entry, flags=entry.flags | Flag.MAIN | Flag.STORED_X)
    return replace(entry, flags=entry.flags | Flag.STORED_X) if entry.meta.mode & _EXECUTE else entry
