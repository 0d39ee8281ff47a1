"""Which files of a native image differ from those that the last build took: for a step that has not run yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sconify_cache.keys import content_id_of
from sconify_cache.store import MissingBlobError
from sconify_tasks.errors import SconifyError
from sconify_tasks.explain_contents import changed_files
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.tree import decode_tree
from sconify_tasks.image.paths import below, outermost

if TYPE_CHECKING:
    from sconify_cache.digest import Digest
    from sconify_tasks.build import Build
    from sconify_tasks.explain import Before

_TREES = ("secret", "public")


def changed_native(build: Build, before: Before) -> tuple[str, ...]:
    """Compare what the last build selected with what is there now, file by file. Reads what is selected."""
    record = before.records.get("files")
    if record is None:
        return ()
    try:
        old = [entry for name in _TREES for entry in _tree(build, record.outputs.get(name))]
        new = _present(build, old)
    except (MissingBlobError, SconifyError):
        return ()
    return changed_files(old, new) or ("nothing that is selected of the native image changed",)


def _tree(build: Build, digest: Digest | None) -> tuple[ManifestEntry, ...]:
    return () if digest is None else decode_tree(build.world.store.get(digest))


def _present(build: Build, old: list[ManifestEntry]) -> list[ManifestEntry]:
    """What lies there now: every path that was selected, and what is new below a selected directory."""
    native, key = build.native(), build.world.keys.content_id_key()
    known = {entry.path: entry for entry in old}
    roots = [path for path in outermost(list(known)) if native.lstat(path) is not None]
    found: list[ManifestEntry] = []
    with native.walk(roots) as stream:
        for entry, content in stream:
            if entry.path in known or any(below(entry.path, root) for root in roots):
                digest = b"" if content is None else bytes.fromhex(content_id_of(key, content))
                flags = known[entry.path].flags if entry.path in known else ManifestEntry(meta=entry).flags
                found.append(ManifestEntry(meta=entry, content=digest, flags=flags))
    return found
