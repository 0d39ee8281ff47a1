"""binary_fs: the section that carries the embedded files, its root hash, and the skeleton of directories that the image keeps.

Only contents that the previous section of this image lacks are read; the rest is copied from it inside the kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sconify_cache.store import MissingBlobError
from sconify_tasks.binary_fs.index import Extent
from sconify_tasks.binary_fs.section import Source, Staging, known_sources, write_section
from sconify_tasks.binary_fs.skeleton import skeleton
from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.regions import Protection, Regions, prefixes
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import shown
from sconify_tasks.image.source import ContentIdSource
from sconify_tasks.image.tar_write import FileRange
from sconify_tasks.layers import store_layer
from sconify_tasks.protection import regions_from_facts
from sconify_tasks.sconified import write_sconified
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the section, its root hash and an index of its contents by content id, and the layer with the skeleton."""
    store = context.world.store
    regions = regions_from_facts(context.fact("regions"))
    tree = _tree(context, "embedded")
    closure = {entry.path for entry in _tree(context, "libraries")}
    files = [_flagged(entry, closure) for entry in tree if entry.meta.kind is Kind.FILE]
    visible = _visible(context, regions, tree)
    with store.scratch() as scratch:
        sources = _sources(context, files, scratch)
        path = scratch / "section"
        written = write_section(path, regions=regions, visible=visible, embedded=files, sources=sources)
        section = store.adopt(path, private=True)
        stub = scratch / "stub"
        write_sconified(context.world.runtime(context.text("architecture")), stub, {})
        items = skeleton(
            [*visible, *files],
            embedded=frozenset(entry.path for entry in files),
            base=context.base().lstat,
            stub=FileRange(path=stub, length=stub.stat().st_size),
        )
        layer = store_layer(store, items)
    return Outputs(
        blobs={"section": section, "index": store.put(_index(written.extents), private=True), "layer": layer.blob},
        facts={"root": written.root.hex(), "layer_facts": layer.facts(), "files": len(files), "nothing": None},
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


def _sources(context: Context, files: Sequence[ManifestEntry], scratch: Path) -> dict[bytes, Source]:
    """Find every content in the previous section, or read it from the native image."""
    sources = _known(context)
    missing: dict[bytes, bytes] = {}
    for entry in files:
        if entry.content not in sources:
            missing.setdefault(entry.content, entry.path)
    by_path = {path: content_id for content_id, path in missing.items()}
    staging = Staging(path=scratch / "staged", key=context.world.keys.content_id_key())
    native = context.native()
    vouches = native.content_id if isinstance(native, ContentIdSource) else None
    with staging.open() as out, native.walk(sorted(by_path)) as stream:
        for found, content in stream:
            content_id = by_path.pop(found.path, None)
            if content_id is not None and content is not None:
                context.progress(found.size)
                vouched = vouches is not None and vouches(found.path) == content_id
                sources[content_id] = staging.add(found, content, content_id, out, vouched=vouched)
    if by_path:
        raise SconifyError(f"{shown(min(by_path))} is gone from the native image", hint="build again when nothing writes to it")
    context.count("files embedded", len(missing))
    context.count("files copied from before", len({entry.content for entry in files}) - len(missing))
    return sources


def _known(context: Context) -> dict[bytes, Source]:
    """What the previous section of this image holds; empty where anything of it is gone."""
    previous, store = context.previous, context.world.store
    if previous is None or not {"section", "index"} <= previous.blobs.keys():
        return {}
    try:
        facts = json.loads(store.get(previous.blobs["index"]))
        path = store.path(previous.blobs["section"])
    except MissingBlobError:
        return {}
    extents = {
        bytes.fromhex(content_id): Extent(offset=offset, size=size, digests=bytes.fromhex(digests))
        for content_id, (offset, size, digests) in facts.items()
    }
    return known_sources(path, extents)


def _index(extents: Mapping[bytes, Extent]) -> bytes:
    facts: Iterable[tuple[str, tuple[int, int, str]]] = (
        (content_id.hex(), (extent.offset, extent.size, extent.digests.hex())) for content_id, extent in extents.items()
    )
    return json.dumps(dict(sorted(facts))).encode()
