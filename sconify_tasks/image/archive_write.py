"""Archives of images, written in one way only: equal images are equal bytes. Streamed, whatever their size."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Struct

from sconify_tasks.errors import SconifyError, UsageError, VerificationError
from sconify_tasks.file_lock import locked
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.model import Layer, Sha256
from sconify_tasks.image.streams import CHUNK
from sconify_tasks.image.tar_write import BLOCK, header


class Part(Struct, frozen=True, kw_only=True):
    """A file of the archive. Its bytes are verified on their way where a digest is given."""

    name: str
    size: int
    open: Callable[[], BinaryIO]
    digest: Sha256 | None = None


def small_part(name: str, data: bytes) -> Part:
    """A document, which is its own proof."""
    import io

    return Part(name=name, size=len(data), open=lambda: io.BytesIO(data))


def layer_part(name: str, layer: Layer, *, verify: bool) -> Part:
    """A plain layer tar in a file."""
    return Part(
        name=name,
        size=layer.size,
        open=lambda: cast("BinaryIO", layer.path.open("rb")),
        digest=layer.diff_id if verify else None,
    )


def archive_bytes(parts: Iterable[Part]) -> Iterator[bytes]:
    """Yield the tar. Of parts with one name, the first is written. VerificationError for a part that is not what it was."""
    written: set[str] = set()
    for part in parts:
        if part.name not in written:
            written.add(part.name)
            yield header(Entry(path=b"/" + part.name.encode(), kind=Kind.FILE, size=part.size))
            yield from _content(part)
            yield bytes(-part.size % BLOCK)
    yield bytes(2 * BLOCK)


def docker_parts(config: bytes, diff_ids: Sequence[Sha256], carried: Iterable[Layer], *, tag: str, verify: bool) -> list[Part]:
    """List the parts of a docker-archive: manifest.json names all layers, `carried` are the ones that are in it."""
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layers = [_layer_name(digest) for digest in diff_ids]
    manifest = [{"Config": config_name, "RepoTags": [tag] if tag else None, "Layers": layers}]
    return [
        small_part("manifest.json", json.dumps(manifest).encode()),
        small_part(config_name, config),
        *(layer_part(_layer_name(layer.diff_id), layer, verify=verify) for layer in carried),
    ]


@contextmanager
def replacing(path: Path, label: str) -> Iterator[BinaryIO]:
    """Write a file that takes the name when the block ends without an error; until then what had it keeps it.

    One writer at a time; what a killed one left under the temporary name is taken over.
    """
    temporary = path.with_name(f".{path.name}.sconify")
    try:
        with locked(temporary) as descriptor, os.fdopen(descriptor, "r+b", closefd=False) as out:
            out.truncate(0)
            try:
                yield cast("BinaryIO", out)
                out.flush()
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            temporary.replace(path)
    except OSError as error:
        msg = f"{label}: {error.strerror or error}"
        raise SconifyError(msg, hint="make room or choose another file") from error


def refuse_to_replace(label: str, what: str) -> UsageError:
    """An archive is written whole: what else is in the file would be lost."""
    return UsageError(f"{label} is there already and {what}", hint="choose another file, or remove this one")


def _content(part: Part) -> Iterator[bytes]:
    hasher, left = hashlib.sha256(), part.size
    with part.open() as file:
        while left and (data := file.read(min(CHUNK, left))):
            left -= len(data)
            if part.digest is not None:
                hasher.update(data)
            yield data
    if left or (part.digest is not None and hasher.hexdigest() != part.digest.removeprefix("sha256:")):
        msg = f"{part.name} is not the file it was"
        raise VerificationError(msg, hint="build again")


def _layer_name(digest: Sha256) -> str:
    return f"{digest.removeprefix('sha256:')}/layer.tar"
