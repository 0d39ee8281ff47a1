"""The layers of an engine's export, kept in files without a name: not even a killed process leaves them behind."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

from sconify_tasks.image.model import Layer, Sha256
from sconify_tasks.image.streams import CHUNK, Forward, uncompressed


def keep_layer(path: bytes, content: BinaryIO, wanted: set[Sha256], kept: dict[Sha256, BinaryIO]) -> None:
    """Spill what may be a layer; told by its digest, because engines name and compress the files of an export differently."""
    if not (path.endswith(b"/layer.tar") or path.startswith(b"/blobs/sha256/")):
        return
    file = cast("BinaryIO", tempfile.TemporaryFile(prefix="sconify-"))  # noqa: SIM115
    if _spill(content, file, wanted, kept):
        return
    file.seek(0)
    tar = uncompressed(file)
    if tar is not file and path.startswith(b"/blobs/"):
        plain = cast("BinaryIO", tempfile.TemporaryFile(prefix="sconify-"))  # noqa: SIM115
        if not _spill(cast("BinaryIO", Forward(tar)), plain, wanted, kept):
            plain.close()
    file.close()


def _spill(content: BinaryIO, file: BinaryIO, wanted: set[Sha256], kept: dict[Sha256, BinaryIO]) -> bool:
    hasher = hashlib.sha256()
    while data := content.read(CHUNK):
        hasher.update(data)
        file.write(data)
    file.flush()
    digest = Sha256("sha256:" + hasher.hexdigest())
    if digest in wanted and digest not in kept:
        kept[digest] = file
        return True
    return False


def layer_of(digest: Sha256, file: BinaryIO) -> Layer:
    """The layer in a file without a name, at the place where this process can open it."""
    return Layer(diff_id=digest, size=file.seek(0, io.SEEK_END), path=Path(f"/proc/self/fd/{file.fileno()}"))
