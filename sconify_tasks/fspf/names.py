"""Where protected files lie in the image (docs/formats.md section 1)."""

from __future__ import annotations

from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.stream import derive

FSPF_DIRECTORY = b"/fspf"
MANIFEST_PATH = b"/fspf/fs.fspf"
STUB_PATH = b"/fspf/stub"
X_DIRECTORY = b"/fspf/x"
_NAME_INFO = b"sconify/name/1"
_NAME_SIZE = 16


def x_name(fspf_key: bytes, salt: bytes) -> str:
    """Name below `/fspf/x` of an encrypted executable whose content has the digest `salt`."""
    return derive(fspf_key, salt, _NAME_INFO, _NAME_SIZE).hex()


def stored_path(fspf_key: bytes, entry: ManifestEntry) -> bytes:
    """Where the stored bytes of a file's entry lie."""
    if entry.flags and entry.flags & Flag.STORED_X:
        return X_DIRECTORY + b"/" + x_name(fspf_key, entry.content).encode()
    return entry.meta.path
