"""libraries: the shared objects and the loader that the program and the selected ELF files need, as a tree.

They are not secret: they are copied as they are, and verified when they are opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sconify_cache.keys import content_id_of
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.image.paths import shown
from sconify_tasks.image.source import ContentIdSource, SourceImage
from sconify_tasks.libraries import Closure, Dependent, closure
from sconify_tasks.selection import ancestors
from sconify_tasks.step import Context, Outputs

# glibc opens these by name at run time: no DT_NEEDED tells of them.
_OPENED_BY_GLIBC = (b"libgcc_s.so.1", b"libnss_files.so.2", b"libnss_dns.so.2", b"libresolv.so.2")


def run(context: Context) -> Outputs:
    """Yield the tree of the closure, and the symlinks under which its objects are looked for."""
    if context.options.flag("disable-copy-shared-object-dependencies") or context.fact("static"):
        return _outputs(context, [], [], {})
    native = context.native()
    found = closure(
        native,
        context.text("binary").encode(),
        dlopened=_dependents(context),
        ld_library_path=context.text("library_path").encode(),
    )
    _explain(context, found)
    links = {link.path: link.target for library in found.libraries for link in library.links}
    tree = list(_tree(context, native, {library.resolved for library in found.libraries}))
    parents = ancestors(native, [*links, *(entry.path for entry in tree)])
    return _outputs(context, tree, parents, links)


def _dependents(context: Context) -> Iterator[Dependent]:
    """What is loaded later: extension modules among the selected files, and what glibc opens by itself."""
    if "ld-linux" in context.text("interpreter"):
        yield Dependent(path=context.text("binary").encode(), needed=_OPENED_BY_GLIBC)
    objects = context.fact("objects")
    assert isinstance(objects, list)
    for facts in objects:
        assert isinstance(facts, Mapping)
        yield _dependent(facts)


def _dependent(facts: Mapping[str, Any]) -> Dependent:
    return Dependent(
        path=facts["path"].encode(),
        needed=tuple(name.encode() for name in facts["needed"]),
        rpath=facts["rpath"].encode(),
        runpath=facts["runpath"].encode(),
    )


def _explain(context: Context, found: Closure) -> None:
    for library in found.libraries:
        who = ", ".join(shown(path) for path in library.needed_by[:3])
        rest = len(library.needed_by) - 3
        more = f" and {rest} more" if rest > 0 else ""
        context.detail(f"library {shown(library.path)}, by {library.found_by}, needed by {who}{more}")
    for missing in found.missing:
        name, who = (text.decode(errors="replace") for text in (missing.name, missing.needed_by))
        if missing.name not in _OPENED_BY_GLIBC:
            context.detail(f"{who} asks for {name}, which can't be loaded in the native image either: {missing.reason}")


def _tree(context: Context, native: SourceImage, paths: Iterable[bytes]) -> Iterator[ManifestEntry]:
    key = context.world.keys.content_id_key()
    known = native.content_id if isinstance(native, ContentIdSource) else None
    with native.walk(sorted(paths)) as stream:
        for entry, content in stream:
            if content is not None:
                digest = (known(entry.path) if known else None) or bytes.fromhex(content_id_of(key, content))
                yield ManifestEntry(meta=entry, flags=Flag.CLOSURE, content=digest)


def _outputs(
    context: Context, tree: Iterable[ManifestEntry], parents: Iterable[ManifestEntry], links: Mapping[bytes, bytes]
) -> Outputs:
    return Outputs(
        blobs={
            "tree": context.world.trees.put(tree),
            "parents": context.world.trees.put(parents),
        },
        facts={"links": [[path.decode(), target.decode()] for path, target in sorted(links.items())]},
    )
