"""files: what is selected of the native image, as a tree with keyed content ids. Nothing is copied yet.

Selected are the protected directories, the plain paths, and the service's own libraries. Each path's class is that of
its region; a path outside of every region of ours is not selected, even below a selected directory (`--host-path`).
"""

from __future__ import annotations

from typing import BinaryIO

from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.regions import Protection, Regions, prefixes
from sconify_tasks.fspf.tree import encode_tree
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import outermost
from sconify_tasks.image.source import SourceImage
from sconify_tasks.objects import ObjectFacts, read_object
from sconify_tasks.selection import OPTIONS, select
from sconify_tasks.services import LOADER_FILES, detect
from sconify_tasks.steps.step import Context, Outputs, Step

_BUFFER = 1 << 20


def run(context: Context) -> Outputs:
    """Yield the tree, the regions, the links that lead to selected paths, and what ELF files in the tree need."""
    native = context.native()
    selection = select(native, context.options)
    service = _service_paths(context, native)
    regions = selection.regions(service | _absent_pins(context))
    roots = outermost([*selection.encrypted, *selection.plain, *service])
    tree, objects = _scan(context, native, roots, regions, selection.plain)
    return Outputs(
        blobs={"tree": context.world.store.put(encode_tree(tree), private=True)},
        facts={
            "regions": [[region.path.decode(), int(region.protection)] for region in regions.regions],
            "links": [[path.decode(), target.decode()] for path, target in sorted(selection.links.items())],
            "objects": [facts.as_json() for facts in objects],
        },
    )


def _service_paths(context: Context, native: SourceImage) -> set[bytes]:
    """Where the service's libraries lie in this image, unless they are not wanted."""
    service = detect(context.text("binary"))
    if service is None or context.options["disable-copy-service-libraries"]:
        return set()
    return {path for path in service.libraries if _is_directory(native.lstat(path))}


def _absent_pins(context: Context) -> set[bytes]:
    service = detect(context.text("binary"))
    return {*LOADER_FILES, *(service.absent if service else ())}


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is Kind.DIR


def _scan(
    context: Context, native: SourceImage, roots: list[bytes], regions: Regions, plain: frozenset[bytes]
) -> tuple[list[ManifestEntry], list[ObjectFacts]]:
    """Walk the roots once; hash every selected file, and look into the ELF files among them."""
    key = context.world.keys.content_id_key()
    tree: list[ManifestEntry] = []
    objects: list[ObjectFacts] = []
    digests: dict[bytes, bytes] = {}
    with native.walk(roots) as stream:
        for entry, content in stream:
            if not _selected(entry.path, regions, plain):
                continue
            digest = b""
            if entry.kind is Kind.FILE and content is None:
                digest = digests[entry.hardlink]
            elif entry.kind is Kind.FILE:
                digest, facts = _read(entry, content, key)
                digests[entry.path] = digest
                objects += [facts] if facts else []
            tree.append(ManifestEntry(meta=entry, content=digest))
    return tree, objects


def _selected(path: bytes, regions: Regions, plain: frozenset[bytes]) -> bool:
    """Whether the path's own region is one that we fill; the root directory itself belongs to the base."""
    if path == b"/":
        return False
    if regions.protection(path) is not Protection.NONE:
        return True
    region = next(prefix for prefix in prefixes(path) if prefix in regions.by_path)
    return region in plain


def _read(entry: Entry, content: BinaryIO, key: bytes) -> tuple[bytes, ObjectFacts | None]:
    """The keyed content id, and what an ELF file needs, in one pass over the content."""
    from blake3 import blake3

    hasher = blake3(key=key)
    head = content.read(_BUFFER)
    facts, rest = read_object(entry, head, content)
    for block in (head, *rest):
        hasher.update(block)
    return hasher.digest(), facts




STEP = Step(
    name="files",
    version=1,
    run=run,
    inputs={"native": "external.native", "binary": "binary.path"},
    reads=OPTIONS | {"disable-copy-service-libraries"},
    secret=True,
)
