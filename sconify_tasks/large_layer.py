"""A layer of one file, which is written where it stays: nothing of it is ever in a file of its own.

The two digests that name the layer, SHA-256 for images and BLAKE3 for the store, are taken at the same time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import SEEK_END
from typing import BinaryIO

from sconify_cache.store import WritableStore
from sconify_tasks.errors import SconifyError
from sconify_tasks.image.entry import Entry
from sconify_tasks.image.model import Sha256
from sconify_tasks.image.paths import shown
from sconify_tasks.image.tar_write import BLOCK, header
from sconify_tasks.layers import StoredLayer

_BUFFER = 1 << 17


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
        with path.open("rb", buffering=0) as again, ThreadPoolExecutor(1) as beside:
            sha256 = beside.submit(_sha256, again)
            blob = store.adopt(path)
            diff_id = Sha256(f"sha256:{sha256.result()}")
    return StoredLayer(blob=blob, diff_id=diff_id, size=size, offsets={entry.path: len(head)})


def _sha256(file: BinaryIO) -> str:
    hasher, buffer = hashlib.sha256(), bytearray(_BUFFER)
    view = memoryview(buffer)
    while length := file.readinto(buffer):  # type: ignore[attr-defined]
        hasher.update(view[:length])
    return hasher.hexdigest()
