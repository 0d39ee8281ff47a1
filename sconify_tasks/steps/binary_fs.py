"""binary_fs: header and index of the embedded file system, its root hash, and the skeleton of directories that the image keeps.

No file is read: the digests of their chunks came with the scan, and `sconify` writes their contents where they stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sconify_tasks.binary_fs.digests import decode_digests
from sconify_tasks.binary_fs.section import outline
from sconify_tasks.binary_fs.skeleton import skeleton
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.regions import Protection, Regions, prefixes
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.tar_write import FileRange
from sconify_tasks.layers import store_layer
from sconify_tasks.protection import regions_from_facts
from sconify_tasks.step import Context, Outputs
from sconify_tasks.stub import stub_of


def run(context: Context) -> Outputs:
    """Yield the section without its data, its root hash, and the layer with the skeleton."""
    store = context.world.store
    regions = regions_from_facts(context.fact("regions"))
    tree = _tree(context, "embedded")
    closure = {entry.path for entry in _tree(context, "libraries")}
    files = [_flagged(entry, closure) for entry in tree if entry.meta.kind is Kind.FILE]
    visible = _visible(context, regions, tree)
    digests = decode_digests(store.get(context.blob("digests")))
    section = outline(regions=regions, visible=visible, embedded=files, digests=digests)
    stub = stub_of(context.world, context.text("architecture"))
    items = skeleton(
        [*visible, *files],
        embedded=frozenset(entry.path for entry in files),
        base=context.base().lstat,
        stub=FileRange(path=stub, length=stub.stat().st_size),
    )
    layer = store_layer(store, items)
    return Outputs(
        blobs={"section": store.put(section.encode(), private=True), "layer": layer.blob},
        facts={"root": section.root.hex(), "layer_facts": layer.facts(), "files": len(files), "nothing": None},
    )


def _tree(context: Context, name: str) -> tuple[ManifestEntry, ...]:
    return context.world.trees.get(context.blob(name))


def _flagged(entry: ManifestEntry, closure: set[bytes]) -> ManifestEntry:
    return replace(entry, flags=Flag.CLOSURE) if entry.path in closure else entry


def _visible(context: Context, regions: Regions, tree: Sequence[ManifestEntry]) -> list[ManifestEntry]:
    """Everything that is seen and not embedded: directories, symlinks, the program, and verified libraries on the disk."""
    found: dict[bytes, ManifestEntry] = {}
    for name in ("parents", "library_parents"):
        found |= {entry.path: entry for entry in _tree(context, name)}
    for name in ("file_links", "library_links", "binary_links"):
        for link, target in context.pairs(name):
            meta = Entry(path=link.encode(), kind=Kind.SYMLINK, mode=0o777, target=target.encode())
            found[meta.path] = ManifestEntry(meta=meta)
    found |= {entry.path: replace(entry, flags=entry.flags & ~Flag.PINNED) for entry in _tree(context, "copied")}
    files = {entry.path for entry in tree if entry.meta.kind is Kind.FILE}
    found |= {entry.path: entry for entry in tree if entry.path not in files}
    for path in [*found, *files]:
        for above in prefixes(path):
            if above not in (path, b"/"):
                found.setdefault(above, ManifestEntry(meta=Entry(path=above, kind=Kind.DIR, mode=0o755)))
    return [
        entry
        for entry in found.values()
        if regions.protection(entry.path) is not Protection.NONE and entry.path not in files and entry.path != b"/"
    ]
