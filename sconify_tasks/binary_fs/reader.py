"""Who looks at the files of a folder while they are read for its identity: with --binary-fs, they are read once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sconify_tasks.options import Options

if TYPE_CHECKING:
    from sconify_tasks.image.source import ContentReader, SourceImage


def reader_of(options: Options) -> ContentReader | None:
    """Takes the chunk digests of what will most likely be embedded; what it misses is read once more."""
    if not options.flag("binary-fs"):
        return None
    from sconify_tasks.binary_fs.digests import ChunkDigests
    from sconify_tasks.binary_fs.selecting import likely

    return ChunkDigests({}, likely(options))


def read_before(native: SourceImage) -> Mapping[bytes, bytes]:
    """The chunk digests that were taken with the identity, by path."""
    from sconify_tasks.binary_fs.digests import ChunkDigests

    reader = getattr(native, "reader", None)
    return reader.found() if isinstance(reader, ChunkDigests) else {}
