"""embedded: in the place of `files` with --binary-fs: what goes into the binary, and what is copied beside it, as trees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sconify_cache.store import MissingBlobError
from sconify_tasks.binary_fs.digests import ChunkDigests, decode_digests, encode_digests
from sconify_tasks.binary_fs.selecting import Chosen, choose, embeddable
from sconify_tasks.binary_fs.watching import contents, watched
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.regions import Protection, prefixes
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import shown
from sconify_tasks.image.source import SourceImage
from sconify_tasks.scan import Scan, earlier, scan
from sconify_tasks.selection import ancestors, scripts_of, service_of
from sconify_tasks.step import Context, Outputs

# There must be somewhere to write temporary files, in memory.
_WANTED = (b"/tmp", b"/var/tmp")


def run(context: Context) -> Outputs:
    """Yield what is embedded and what is copied, regions, the links and parents on the way, and what ELF files need."""
    native = context.native()
    service = service_of(context)
    chosen = choose(native, context.options, service=service, scripts=scripts_of(context))
    for path in sorted(chosen.plain | chosen.host):
        context.detail(f"not protected: {shown(path)}, by {'--host-path' if path in chosen.host else '--plain'}")
    embedded, public, found, digests = _scan(context, native, chosen)
    parents = _parents(context, native, chosen, [*embedded, *public], service.directories if service else ())
    return Outputs(
        blobs={
            "embedded": context.world.trees.put(embedded),
            "digests": context.world.store.put(encode_digests(digests), private=True),
            "public": context.world.trees.put(public),
            "parents": context.world.trees.put(parents),
        },
        facts={
            "roots": (),
            "regions": [[region.path.decode(), int(region.protection)] for region in chosen.regions().regions],
            "links": [[path.decode(), target.decode()] for path, target in sorted(chosen.links.items())],
            "objects": [facts.as_json() for facts in found.objects],
        },
    )


def _scan(
    context: Context, native: SourceImage, chosen: Chosen
) -> tuple[list[ManifestEntry], list[ManifestEntry], Scan, dict[bytes, bytes]]:
    """Look at every selected file, which is read only where its content is not known; tell embedded ones and copied ones.

    The chunk digests of what is embedded come with them, by content id.
    """
    regions, binary = chosen.regions(), context.text("binary").encode()

    def inside(path: bytes) -> bool:
        return regions.protection(path) is not Protection.NONE and path != binary and chosen.embeds(path)

    seen = watched(native)
    unread = contents(native, seen.plain())
    before = earlier(context.previous, context.world.trees, trees=("embedded", "public"))
    with ChunkDigests(_known(context), inside, before=seen.digests()) as reader:
        found = scan(
            native,
            chosen.roots(),
            key=context.world.keys.content_id_key(),
            before=before.and_plain(unread),
            selected=lambda path: path != b"/" and (inside(path) or chosen.copies(path)),
            encrypted=lambda _: False,
            progress=context.progress,
            reader=reader,
        )
        context.count("files read", found.read + sum(entry.path in unread for entry in found.public))
        inner = [entry for entry in found.public if inside(entry.path)]
        embedded = [entry for entry in inner if embeddable(entry.meta)]
        digests = {entry.content: reader.of(entry.path, entry.content) for entry in embedded if entry.meta.kind is Kind.FILE}
    for entry in inner:
        if not embeddable(entry.meta):
            context.warn(f"{shown(entry.path)} is a device or a FIFO: it is not embedded")
    public = [entry for entry in found.public if chosen.copies(entry.path)]
    return embedded, public, found, digests


def _known(context: Context) -> dict[bytes, bytes]:
    """Digests that the previous run found; none where they are gone."""
    if context.previous is None or "digests" not in context.previous.blobs:
        return {}
    try:
        return decode_digests(context.world.store.get(context.previous.blobs["digests"]))
    except MissingBlobError:
        return {}


def _parents(
    context: Context, native: SourceImage, chosen: Chosen, entries: Sequence[ManifestEntry], more: Iterable[bytes]
) -> list[ManifestEntry]:
    """Directories that must be there although nobody selected them, and those that lead to what is seen."""
    workdir = context.load("config")["workdir"].encode()
    wanted = {*_WANTED, *more, workdir, *(parent for path in entries for parent in _above(path.path))}
    directories = {path for path in wanted if (found := native.lstat(path)) is not None and found.kind is Kind.DIR}
    seen = {context.text("binary").encode(), *(region.path for region in chosen.regions().regions), *chosen.links}
    made = {entry.path: entry for entry in ancestors(native, [*seen, *(path + b"/." for path in directories)])}
    for path in _WANTED:
        # Also where the native image has none: in memory it costs nothing.
        made.setdefault(path, ManifestEntry(meta=Entry(path=path, kind=Kind.DIR, mode=0o1777)))
    return list(made.values())


def _above(path: bytes) -> list[bytes]:
    return [prefix for prefix in prefixes(path) if prefix not in (path, b"/")]
