"""A layer of one file, which is written where it stays: nothing of it is ever in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from io import SEEK_END
from typing import BinaryIO

from sconify_cache.store import WritableStore
from sconify_tasks.errors import SconifyError
from sconify_tasks.image.entry import Entry
from sconify_tasks.image.paths import shown
from sconify_tasks.image.tar_write import BLOCK, header
from sconify_tasks.layers import StoredLayer, take_layer


def store_large_layer(store: WritableStore, entry: Entry, write: Callable[[BinaryIO], None]) -> StoredLayer:
    """Store a layer tar of one file; `write` is handed a seekable file and writes `entry.size` bytes from where it stands.

    The bytes are those of `write_tar`. Nothing is stored where `write` raises or writes another number of bytes.
    """
    with store.scratch() as scratch:
        path = scratch / "layer"
        head = header(entry)
        with path.open("w+b") as out:
            out.write(head)
            write(out)
            written = out.seek(0, SEEK_END) - len(head)
            if written != entry.size:
                raise SconifyError(f"{shown(entry.path)} has {written} bytes in its layer, not {entry.size}")
            out.write(bytes(-entry.size % BLOCK + 2 * BLOCK))
            size = out.tell()
        blob, diff_id = take_layer(store, path)
    return StoredLayer(blob=blob, diff_id=diff_id, size=size, offsets={entry.path: len(head)})
