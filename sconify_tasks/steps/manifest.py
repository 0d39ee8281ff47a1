"""manifest: regions and entries, sealed under the image's key, in a layer of their own; the tag that pins it."""

from __future__ import annotations

from collections.abc import Mapping

from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.manifest import Manifest, fspf_tag, seal_manifest
from sconify_tasks.fspf.names import FSPF_DIRECTORY, MANIFEST_PATH
from sconify_tasks.fspf.regions import Protection, Regions
from sconify_tasks.image.confidential import refuse_confidential_base
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import outermost, shown
from sconify_tasks.image.source import SourceImage
from sconify_tasks.layers import store_layer
from sconify_tasks.protection import regions_from_facts
from sconify_tasks.sealed import flagged
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the sealed manifest's layer, its tag, and the manifest itself for the image's last check."""
    store = context.world.store
    regions = regions_from_facts(context.fact("regions"))
    merged = {entry.path: entry for entry in context.world.trees.get(context.blob("copied"))}
    # A directory that is pinned for what lies below it may itself be protected: its own class goes first.
    main = context.text("binary").encode()
    merged |= {entry.path: flagged(entry, main=main) for entry in context.world.trees.get(context.blob("salts"))}
    closure = {entry.path for entry in context.world.trees.get(context.blob("libraries"))}
    entries = tuple(_classed(merged[path], regions, closure=path in closure) for path in sorted(merged))
    _check_base(context.base(), regions, merged)
    sealed = seal_manifest(context.fspf_key(), Manifest(regions=regions, entries=entries))
    directory = Entry(path=FSPF_DIRECTORY, kind=Kind.DIR, mode=0o755)
    file = Entry(path=MANIFEST_PATH, kind=Kind.FILE, mode=0o644, size=len(sealed))
    layer = store_layer(store, [(directory, None), (file, sealed)])
    return Outputs(
        blobs={"layer": layer.blob},
        facts={"layer_facts": layer.facts(), "tag": fspf_tag(sealed).hex(), "entries": len(entries)},
    )


def _check_base(base: SourceImage, regions: Regions, entries: Mapping[bytes, ManifestEntry]) -> None:
    """UsageError where the base has a file of its own inside a protected region: at run time it would be a planted one."""
    refuse_confidential_base(base)
    roots = [region.path for region in regions.regions if region.protection and base.lstat(region.path) is not None]
    if b"/" in roots and base.name != "scratch":
        raise UsageError(f"--dir=/ protects the whole image, and {base.name} has files of its own", hint="use --base=scratch")
    with base.walk(outermost(roots)) as stream:
        for found, _ in stream:
            known = entries.get(found.path)
            if found.path != b"/" and regions.protection(found.path) and (known is None or known.meta.kind is not found.kind):
                raise UsageError(
                    f"the base {base.name} has {shown(found.path)} inside a protected directory, and the native image has not",
                    hint="choose a base without it, such as --base=scratch",
                )


def _classed(entry: ManifestEntry, regions: Regions, *, closure: bool) -> ManifestEntry:
    """An entry with its region's class; a file outside of every protected region is authenticated.

    `closure` marks a shared object of the program, also where it is an encrypted file like any other.
    """
    protection = regions.protection(entry.path)
    if entry.meta.kind is Kind.FILE:
        protection = protection or Protection.AUTHENTICATED
    flags = entry.flags | Flag.CLOSURE if closure else entry.flags
    return ManifestEntry(meta=entry.meta, protection=protection, flags=flags, content=entry.content)
