"""Layers that steps make: written once into the store, named in records by blob, diff id and size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Struct

from sconify_cache.digest import Digest
from sconify_cache.keys import JSON
from sconify_cache.store import WritableStore
from sconify_tasks.ahead import Ahead
from sconify_tasks.image.entry import Entry
from sconify_tasks.image.model import Layer, Sha256
from sconify_tasks.image.tar_write import Content, FileRange, TarWriter, order_key

_LARGE = 16 << 20  # of so many bytes, reading them again on two threads takes less time than hashing them one after the other


class StoredLayer(Struct, frozen=True, kw_only=True):
    """An uncompressed layer tar in the store, and where in it each file's content begins."""

    blob: Digest
    diff_id: Sha256
    size: int
    offsets: dict[bytes, int]

    def facts(self) -> dict[str, JSON]:
        """What a record keeps beside the blob."""
        return {"diff_id": str(self.diff_id), "size": self.size}


def store_layer(store: WritableStore, items: Iterable[tuple[Entry, Content]]) -> StoredLayer:
    """Write the items, in any order, as one layer. A file that breaks off leaves nothing in the store."""
    ordered = sorted(items, key=lambda item: order_key(item[0]))
    if sum(content.length for _, content in ordered if isinstance(content, FileRange)) >= _LARGE:
        return _copied_layer(store, ordered)
    with store.writer() as blob:
        writer = TarWriter(cast("BinaryIO", blob))
        try:
            offsets = {entry.path: writer.add(entry, content) for entry, content in ordered}
            written = writer.close()
        finally:
            writer.release()
    return StoredLayer(blob=blob.digest, diff_id=written.diff_id, size=written.size, offsets=offsets)


def _copied_layer(store: WritableStore, ordered: Iterable[tuple[Entry, Content]]) -> StoredLayer:
    """Copy what lies in files inside the kernel, as a reflink where the file system has them, and hash all of it afterwards."""
    with store.scratch() as scratch:
        path = scratch / "layer"
        with path.open("wb") as out:
            writer = TarWriter(out, hashed=False)
            try:
                offsets = {entry.path: writer.add(entry, content) for entry, content in ordered}
                size = writer.end()
            finally:
                writer.release()
        blob, diff_id = take_layer(store, path)
    return StoredLayer(blob=blob, diff_id=diff_id, size=size, offsets=offsets)


def take_layer(store: WritableStore, path: Path) -> tuple[Digest, Sha256]:
    """Take a finished layer over; its two digests, BLAKE3 for the store and SHA-256 for images, are taken at the same time."""
    with path.open("rb", buffering=0) as again, Ahead[str]() as beside:
        sha256 = beside.do(lambda: hashlib.file_digest(again, "sha256").hexdigest())
        return store.adopt(path), Sha256(f"sha256:{beside.result(sha256)}")


def layer_in_store(store: WritableStore, blob: Digest, facts: Mapping[str, JSON]) -> Layer:
    """Find a layer again from its blob and its recorded facts."""
    return Layer(diff_id=Sha256(str(facts["diff_id"])), size=int(str(facts["size"])), path=store.path(blob))
