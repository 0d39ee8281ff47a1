"""The file system embedded in a binary: measured and not secret, so all of it is to be seen, and every byte is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct, field

from sconify_tasks.binary_fs.reading import open_section
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.sconified import Place


class Embedded(Struct, frozen=True, kw_only=True):
    """`document` is JSON-able: the number of files, their bytes, the regions, and each file's content hash by path."""

    document: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def inspect_embedded(file: Path, place: Place, root: str) -> Embedded:
    """Look into the section; `root` is the hash in the measured config."""
    try:
        with file.open("rb") as stream:
            section = open_section(stream, offset=place.offset, size=place.size, root=bytes.fromhex(root))
            for extent in section.index.extents.values():
                for _ in section.read(extent):
                    pass
    except MalformedError as error:
        return Embedded(problem=error.message)
    extents = section.index.extents
    return Embedded(
        document={
            "count": len(extents),
            "bytes": sum(extent.size for extent in extents.values()),
            "regions": {
                _text(region.path): region.protection.name.lower().replace("_", "-")
                for region in section.index.manifest.regions.regions
            },
            "files": {_text(path): extents[path].content().hex() for path in sorted(extents)},
        }
    )


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
