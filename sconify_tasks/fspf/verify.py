"""Verify what is stored for an entry: the build reopens what it made before it ships it."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import BinaryIO

from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.regions import Protection
from sconify_tasks.fspf.stream import BLOCK, FILE_INFO, open_stream
from sconify_tasks.image.entry import Kind


def verify_stored(fspf_key: bytes, entry: ManifestEntry, reader: BinaryIO) -> None:
    """Raise MalformedError unless `reader` yields exactly the stored bytes of this file's entry.

    For an unencrypted MAIN entry these are the section `.sconify.elf`, not the file at the path.
    """
    if entry.meta.kind is not Kind.FILE:
        raise MalformedError("kind", f"{entry.path[:200]!r} is no file")
    try:
        if entry.protection is Protection.ENCRYPTED:
            deque(open_stream(fspf_key, FILE_INFO, entry.content, entry.meta.size, reader), maxlen=0)
        else:
            _verify_plain(entry, reader)
    except MalformedError as error:
        raise MalformedError(error.code, f"{entry.path[:200].decode(errors='backslashreplace')}: {error.message}") from None


def _verify_plain(entry: ManifestEntry, reader: BinaryIO) -> None:
    digest, left = hashlib.sha256(), entry.meta.size
    while left:
        block = reader.read(min(BLOCK, left))
        if not block:
            raise MalformedError("truncated", f"the stored file ends {left} bytes too early")
        digest.update(block)
        left -= len(block)
    if reader.read(1):
        raise MalformedError("extended", "the stored file is longer than the manifest says")
    if digest.digest() != entry.content:
        raise MalformedError("digest", "the stored file does not have the digest that the manifest names")
