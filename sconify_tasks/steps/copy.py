"""copy: everything that is not secret, in the lowest layer: libraries, service files, plain paths, links, parents.

What is protected against change gets its manifest entry here, with every directory and symlink on the way to it: a
link planted in the image must not lead elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.names import FSPF_DIRECTORY
from sconify_tasks.fspf.regions import Protection, Regions
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import shown, split
from sconify_tasks.image.placement import place
from sconify_tasks.image.resolve import find_path
from sconify_tasks.image.source import SourceImage
from sconify_tasks.image.tar_write import FileRange
from sconify_tasks.layers import store_layer
from sconify_tasks.protection import regions_from_facts
from sconify_tasks.step import Context, Outputs

_BUFFER = 1 << 17


@dataclass(slots=True, kw_only=True)
class Copied:
    """Contents copied from the native image to one scratch file."""

    path: Path
    ranges: dict[bytes, FileRange] = field(default_factory=dict)
    digests: dict[bytes, bytes] = field(default_factory=dict)
    progress: Callable[[int], None] = lambda _: None

    def add(self, entry: Entry, content: BinaryIO, out: BinaryIO) -> None:
        """Append a file's content."""
        start, hasher = out.tell(), hashlib.sha256()
        while block := content.read(_BUFFER):
            hasher.update(block)
            out.write(block)
            self.progress(len(block))
        self.ranges[entry.path] = FileRange(path=self.path, offset=start, length=out.tell() - start)
        self.digests[entry.path] = hasher.digest()


class FinalView(Struct, frozen=True, kw_only=True):
    """What the finished image will have at a path: ours before the base's."""

    ours: Mapping[bytes, Entry]
    base: SourceImage

    def lstat(self, path: bytes) -> Entry | None:
        """As `FileView.lstat`."""
        return self.ours.get(path) or self.base.lstat(path)


def run(context: Context) -> Outputs:
    """Yield the layer, and the manifest entries of what in it is protected against change."""
    store, base = context.world.store, context.base()
    regions = regions_from_facts(context.fact("regions"))
    wanted = {entry.path: entry for entry in _tree(context, "public")}
    embedded = _embedded(context)
    for entry in _tree(context, "libraries"):
        if regions.protection(entry.path) is not Protection.ENCRYPTED and entry.path not in embedded:
            wanted[entry.path] = replace(wanted.get(entry.path, entry), flags=Flag.CLOSURE)
    parents = {entry.path: entry.meta for name in ("parents", "library_parents") for entry in _tree(context, name)}
    with store.scratch() as scratch:
        copied = _copy(context, wanted, scratch)
        entries = _entries(context, regions, wanted, parents)
        placed = place(entries, base=base.lstat, native=parents.get, missing=None)
        _check_moved(placed, regions)
        layer = store_layer(store, ((entry, copied.ranges.get(asked) if asked else None) for entry, asked in placed))
    view = FinalView(ours={entry.path: entry for entry, _ in placed}, base=base)
    _check_binary(view, context.text("binary").encode())
    # What is copied beside an embedded file system is seen where --host-path says so; libraries always are.
    seen = {path: entry for path, entry in wanted.items() if "embedded" not in context.inputs or entry.flags & Flag.CLOSURE}
    manifest = _manifest(context, regions, view, [*_verified(regions, seen, copied, view), *_main(context)])
    return Outputs(
        blobs={"layer": layer.blob, "entries": context.world.trees.put(manifest, private=False)},
        facts={"layer_facts": layer.facts()},
    )


def _tree(context: Context, name: str) -> tuple[ManifestEntry, ...]:
    return context.world.trees.get(context.blob(name))


def _embedded(context: Context) -> set[bytes]:
    """Paths that the binary carries (--binary-fs): no layer has them."""
    return {entry.path for entry in _tree(context, "embedded")} if "embedded" in context.inputs else set()


def _roots(context: Context) -> set[bytes]:
    """The directories that `--dir` names."""
    roots = context.fact("roots")
    assert isinstance(roots, (list, tuple))
    return {str(root).encode() for root in roots} - {b"/"}


def _copy(context: Context, wanted: Mapping[bytes, ManifestEntry], scratch: Path) -> Copied:
    """Take the contents of all wanted files in one walk."""
    total = sum(entry.meta.size for entry in wanted.values())
    copied = Copied(path=scratch / "contents", progress=partial(context.progress, total=total))
    files = sorted(path for path, entry in wanted.items() if entry.meta.kind is Kind.FILE)
    with copied.path.open("wb") as out, context.native().walk(files) as stream:
        for entry, content in stream:
            if content is not None:
                copied.add(entry, content, out)
    return copied


def _entries(
    context: Context, regions: Regions, wanted: Mapping[bytes, ManifestEntry], parents: Mapping[bytes, Entry]
) -> list[tuple[Entry, bytes | None]]:
    """Everything to be placed, each with the path that its content is filed under. Parents are added by placing."""
    base, config = context.base(), context.load("config")
    found: dict[bytes, tuple[Entry, bytes | None]] = {
        path: (replace(entry.meta, hardlink=b""), path if entry.meta.kind is Kind.FILE else None)
        for path, entry in wanted.items()
    }
    for path, target in _links(context).items():
        if regions.protection(path) is Protection.ENCRYPTED:
            continue  # it is in the encrypted layer, with everything else of its directory
        at = base.lstat(path)
        # Where the base has a directory and the native image a link, files are placed where the base leads.
        if at is None or at.kind is not Kind.DIR:
            found.setdefault(path, (Entry(path=path, kind=Kind.SYMLINK, mode=0o777, target=target), None))
    needed = {split(path)[0] for path in (context.text("binary").encode(), *_roots(context))}
    needed |= {config["workdir"].encode(), FSPF_DIRECTORY, *parents}
    for path in sorted(needed - {b"/"} - found.keys()):
        if base.lstat(path) is None and regions.protection(path) is not Protection.ENCRYPTED:
            found[path] = (parents.get(path, Entry(path=path, kind=Kind.DIR, mode=0o755)), None)
    return list(found.values())


def _links(context: Context) -> dict[bytes, bytes]:
    """The symlinks by which selected paths, libraries and the binary are known."""
    links: dict[bytes, bytes] = {}
    for name in ("file_links", "library_links", "binary_links"):
        links |= {path.encode(): target.encode() for path, target in context.pairs(name)}
    return links


def _check_moved(placed: Iterable[tuple[Entry, bytes | None]], regions: Regions) -> None:
    """UsageError where the base leads something into, or out of, a protected directory."""
    for entry, asked in placed:
        if asked is not None and asked != entry.path and (regions.protection(asked) or regions.protection(entry.path)):
            raise UsageError(
                f"the base leads {shown(asked)} to {shown(entry.path)}, across the border of a protected directory",
                hint="choose another --base",
            )


def _check_binary(view: FinalView, path: bytes) -> None:
    """UsageError where the base leads the binary's directory elsewhere: its layer would replace the base's symlink."""
    parent = find_path(view, split(path)[0])
    if parent is not None and parent.path != split(path)[0]:
        raise UsageError(
            f"the base has a symlink on the way to the binary {shown(path)}: it leads to {shown(parent.path)}",
            hint="choose a base of the native image's family, or --base=scratch",
        )


def _verified(
    regions: Regions, wanted: Mapping[bytes, ManifestEntry], copied: Copied, view: FinalView
) -> Iterator[ManifestEntry]:
    """Entries of what was copied and is verified when it is opened, where the base leads it."""
    for path, entry in wanted.items():
        at = _final(view, path)
        if at is not None and (regions.protection(path) is Protection.AUTHENTICATED or entry.flags & Flag.CLOSURE):
            meta = replace(entry.meta, path=at, hardlink=b"")
            yield ManifestEntry(meta=meta, flags=entry.flags, content=copied.digests.get(path, b""))


def _main(context: Context) -> Iterator[ManifestEntry]:
    """The binary's entry, unless it is a protected file like any other."""
    if not context.fact("protected"):
        yield from (replace(entry, flags=Flag.MAIN) for entry in _tree(context, "main"))


def _manifest(context: Context, regions: Regions, view: FinalView, verified: Iterable[ManifestEntry]) -> list[ManifestEntry]:
    """What is verified, and every directory and symlink that leads to it, to a protected directory or by a known name."""
    found = {entry.path: entry for entry in verified}
    leads = {*found, *_roots(context), *_links(context)}
    leads |= {region.path for region in regions.regions if view.lstat(region.path) is not None}
    for path in sorted(leads - {b"/"}):
        _pin(view, regions, path, found)
    return sorted(found.values(), key=lambda entry: entry.path)


def _final(view: FinalView, path: bytes) -> bytes | None:
    """Where a path's parent leads to in the finished image, with the path's own name."""
    parent, name = split(path)
    resolved = find_path(view, parent)
    return None if resolved is None else resolved.path.rstrip(b"/") + b"/" + name


def _pin(view: FinalView, regions: Regions, path: bytes, found: dict[bytes, ManifestEntry]) -> None:
    """Add the symlinks and directories on the way to `path`, and `path` itself if it is one."""
    resolved = find_path(view, path)
    links = list(resolved.links) if resolved is not None else []
    places = [link.path for link in links] + ([resolved.path] if resolved is not None else [path])
    for link in links:
        found.setdefault(link.path, ManifestEntry(meta=replace(link, xattrs=(), hardlink=b""), flags=Flag.PINNED))
    if resolved is not None and resolved.entry.kind is Kind.DIR and not regions.protection(resolved.path):
        _pin_directory(resolved.path, resolved.entry, found)
    for place_ in places:
        parent = split(place_)[0]
        while parent != b"/":
            entry = view.lstat(parent)
            if entry is not None and entry.kind is Kind.DIR and not regions.protection(parent):
                _pin_directory(parent, entry, found)
            parent = split(parent)[0]


def _pin_directory(path: bytes, entry: Entry, found: dict[bytes, ManifestEntry]) -> None:
    if path != b"/":
        found.setdefault(path, ManifestEntry(meta=replace(entry, path=path, hardlink=b""), flags=Flag.PINNED))
