"""What an embedded file system needs on the disk: the kernel enters directories, and starts programs, by their paths.

Directories and symlinks stand as they are embedded; at an executable's path stands the stub, which asks the supervisor.
Nothing else of the embedded files is in the image's layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.names import FSPF_DIRECTORY, STUB_PATH
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import shown
from sconify_tasks.image.placement import Lookup, place
from sconify_tasks.image.tar_write import Content, FileRange

_EXECUTE = 0o111


def skeleton(
    entries: Iterable[ManifestEntry], *, embedded: frozenset[bytes], base: Lookup, stub: FileRange
) -> list[tuple[Entry, Content]]:
    """Return the layer's items; UsageError where the base leads an embedded path elsewhere."""
    wanted = list(_items(entries, embedded))
    items: list[tuple[Entry, bytes | None]] = [(entry, entry.path) for entry in wanted]
    if any(entry.hardlink for entry in wanted):
        items.append((Entry(path=FSPF_DIRECTORY, kind=Kind.DIR, mode=0o755), None))
        items.append((Entry(path=STUB_PATH, kind=Kind.FILE, mode=0o755, size=stub.length), None))
    placed = place(items, base=base, missing=None)
    for entry, asked in placed:
        if asked is not None and asked != entry.path:
            raise UsageError(
                f"the base leads {shown(asked)}, which is embedded, to {shown(entry.path)}",
                hint="choose a base of the native image's family, or --base=scratch",
            )
    return [(entry, stub if entry.path == STUB_PATH else None) for entry, _ in placed]


def _items(entries: Iterable[ManifestEntry], embedded: frozenset[bytes]) -> Iterator[Entry]:
    for entry in entries:
        meta = replace(entry.meta, hardlink=b"", xattrs=())
        if meta.kind in (Kind.DIR, Kind.SYMLINK):
            yield meta
        elif entry.path in embedded and meta.mode & _EXECUTE:
            yield Entry(path=entry.path, kind=Kind.FILE, mode=0o755, hardlink=STUB_PATH)
