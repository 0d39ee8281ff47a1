"""Layers that steps make: written once into the store, named in records by blob, diff id and size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

from sconify_cache.digest import Digest
from sconify_cache.keys import JSON
from sconify_cache.store import WritableStore
from sconify_tasks.image.entry import Entry
from sconify_tasks.image.model import Layer, Sha256
from sconify_tasks.image.tar_write import Content, TarWriter, order_key


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
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
    offsets: dict[bytes, int] = {}
    with store.writer() as blob:
        writer = TarWriter(cast("BinaryIO", blob))
        try:
            for entry, content in sorted(items, key=lambda item: order_key(item[0])):
                offsets[entry.path] = writer.add(entry, content)
            written = writer.close()
        finally:
            writer.release()
    return StoredLayer(blob=blob.digest, diff_id=written.diff_id, size=written.size, offsets=offsets)


def layer_in_store(store: WritableStore, blob: Digest, facts: Mapping[str, JSON]) -> Layer:
    """Find a layer again from its blob and its recorded facts."""
    return Layer(diff_id=Sha256(str(facts["diff_id"])), size=int(str(facts["size"])), path=store.path(blob))
