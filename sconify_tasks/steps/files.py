"""files: what is selected of the native image, as trees with keyed content ids. Nothing is copied yet.

Of what is to be encrypted, a second tree has the salts (SHA-256) that the manifest will name: it never leaves this machine,
so that `encrypt` itself has public outputs only.

Selected are the protected directories, the plain paths, and the service's own libraries. Each path's class is that of
its region; a path outside of every region of ours is not selected, even below a selected directory (`--host-path`).
"""

from __future__ import annotations

from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.regions import Protection, Regions, prefixes
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import below, outermost, shown, split
from sconify_tasks.image.resolve import find_path
from sconify_tasks.image.source import SourceImage
from sconify_tasks.scan import earlier, scan
from sconify_tasks.selection import ancestors, scripts_of, select, service_libraries, service_of
from sconify_tasks.services import LOADER_FILES, Service
from sconify_tasks.step import Context, Outputs

# A program that has nowhere to write temporary files fails in ways that are hard to read.
WANTED = (b"/tmp", b"/var/tmp")


def run(context: Context) -> Outputs:
    """Yield what is to be encrypted and what is not, regions, the links and parents on the way, and what ELF files need."""
    native = context.native()
    selection = select(native, context.options)
    wanted = not context.options.flag("disable-copy-service-libraries")
    known = service_of(context)
    service, links = service_libraries(native, known) if wanted else (set(), {})
    pins = _pins(known, native) | scripts_of(context)
    links |= selection.links
    regions = selection.regions(service | pins)
    pinned = [path for path in pins if _is(native.lstat(path), Kind.FILE)]
    roots = outermost([*selection.encrypted, *selection.plain, *service, *pinned])
    for path in sorted(selection.plain | selection.host):
        context.detail(f"not protected: {shown(path)}, by {'--host-path' if path in selection.host else '--plain'}")
    parents = _parents(native, context, [*roots, *(known.directories if known else ())])
    parents = [parent for parent in parents if _goes_along(parent.path, regions, selection.plain)]
    found = scan(
        native,
        roots,
        key=context.world.keys.content_id_key(),
        before=earlier(context.previous, context.world.trees),
        selected=lambda path: _selected(path, regions, selection.plain),
        encrypted=lambda path: regions.protection(path) is Protection.ENCRYPTED,
        progress=context.progress,
    )
    context.count("files read", found.read)
    if (layers := getattr(native, "layers_read", None)) is not None:
        context.count("layers read", layers)
        context.count("layers from the cache", len(native.diff_ids) - layers)
    if known and not context.options.flag("disable-configuration-check"):
        _warn_of_readable(context, known, found.public, regions)
    return Outputs(
        blobs={
            "secret": context.world.trees.put(found.secret),
            "salts": context.world.trees.put(found.salts),
            "public": context.world.trees.put(found.public),
            "parents": context.world.trees.put(parents),
        },
        facts={
            "roots": tuple(sorted(path.decode() for path in selection.encrypted)),
            "regions": [[region.path.decode(), int(region.protection)] for region in regions.regions],
            "links": [[path.decode(), target.decode()] for path, target in sorted(links.items())],
            "objects": [facts.as_json() for facts in found.objects],
        },
    )


def _pins(service: Service | None, native: SourceImage) -> set[bytes]:
    """What decides which code is loaded: each is as in the native image, or it is not there, library directories too."""
    if service is None:
        return {*LOADER_FILES}
    return {*LOADER_FILES, *service.absent, *(path for path in service.libraries if find_path(native, path) is None)}


def _warn_of_readable(context: Context, service: Service, public: list[ManifestEntry], regions: Regions) -> None:
    """One line about configuration that is copied without being asked for: it is protected against change, not from eyes."""
    files = (entry.path for entry in public if entry.meta.kind is Kind.FILE)
    verified = (path for path in files if regions.protection(path) is Protection.AUTHENTICATED)
    configuration = set(service.configuration)
    readable = [path for path in verified if not configuration.isdisjoint(prefixes(path))]
    if readable:
        more = f" and {len(readable) - 1} more" if len(readable) > 1 else ""
        context.warn(
            f"{service.name}'s configuration is copied readable: {shown(readable[0])}{more}. Where there is a password or a key"
            f" in it, encrypt it with --dir={shown(split(readable[0])[0])} (--disable-configuration-check: not a word of it)"
        )


def _is(entry: Entry | None, kind: Kind) -> bool:
    return entry is not None and entry.kind is kind


def _parents(native: SourceImage, context: Context, roots: list[bytes]) -> list[ManifestEntry]:
    """Directories that must be there although nobody selected them, and those that lead to what was selected."""
    wanted = {*WANTED, context.load("config")["workdir"].encode(), context.text("binary").encode(), *roots}
    below = (path + b"/." if path in WANTED or _is(native.lstat(path), Kind.DIR) else path for path in wanted)
    return ancestors(native, below)


def _goes_along(path: bytes, regions: Regions, plain: frozenset[bytes]) -> bool:
    """Whether what is copied needs the directory: a protected one comes with what is encrypted, and is new with it only."""
    return regions.protection(path) is not Protection.ENCRYPTED or any(below(each, path) for each in plain)


def _selected(path: bytes, regions: Regions, plain: frozenset[bytes]) -> bool:
    """Whether the path's own region is one that we fill; the root directory itself belongs to the base."""
    if path == b"/":
        return False
    if regions.protection(path) is not Protection.NONE:
        return True
    region = next(prefix for prefix in prefixes(path) if prefix in regions.by_path)
    return region in plain
