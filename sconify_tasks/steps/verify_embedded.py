"""verify_embedded: the finished image is reopened: what was to be embedded is in the binary, byte for byte, and is measured.

Nothing is trusted that was computed on the way: the sconified ELF is taken from the layers, and measured anew.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from sconify_tasks.assembled import assembled, not_as_asked
from sconify_tasks.binary_fs.reading import Section, open_section
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.model import BuiltImage
from sconify_tasks.image.paths import shown
from sconify_tasks.image.search import search_built, search_layers
from sconify_tasks.sconified import FILE_SYSTEM, read_sconified
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.step import Context, Outputs

_BUFFER = 1 << 20


def run(context: Context) -> Outputs:
    """Raise VerificationError unless the binary in the layers carries exactly the tree that was selected."""
    image = assembled(context)
    embedded = context.world.trees.get(context.blob("embedded"))
    with context.world.store.scratch() as scratch:
        path = scratch / "sconified"
        _extract(image, context.text("binary").encode(), path)
        section = _section(context, path)
        with section.file:
            _check_tree(section, embedded, key=context.world.keys.content_id_key())
            on_disk = [entry for entry in section.index.manifest.entries if _on_disk(section, entry)]
    _check_disk(image, on_disk)
    return Outputs(facts={"protected": len(embedded)})


def _extract(image: BuiltImage, binary: bytes, to: Path) -> None:
    """Write the binary of the topmost layer that has one."""
    for layer in reversed(image.layers):  # those below the topmost that has it are not read for it
        for member in search_layers([layer]):  # whole: of two in one layer the later counts
            if member.entry.path == binary and member.content is not None:
                with to.open("wb") as out:
                    shutil.copyfileobj(member.content, out, _BUFFER)
        if to.exists():
            return
    raise not_as_asked(f"{shown(binary)} is in no layer")


def _section(context: Context, path: Path) -> Section:
    """Open the embedded file system of a sconified ELF whose measurement is the session's."""
    sconified = read_sconified(path)
    if sconified.config.binary_fs != context.text("root"):
        raise not_as_asked("the measured config names another embedded file system")
    measured = measure(path, sconified.config)
    if measured != context.text("mrenclave") or sconified.sigstruct.mrenclave != measured:
        raise not_as_asked("the binary does not measure as the session says")
    place = sconified.sections[FILE_SYSTEM]
    # The caller closes it: the section is read from it.
    file: BinaryIO = path.open("rb")
    try:
        return open_section(file, offset=place.offset, size=place.size, root=bytes.fromhex(sconified.config.binary_fs))
    except MalformedError:
        file.close()
        raise


def _check_tree(section: Section, embedded: Iterable[ManifestEntry], *, key: bytes) -> None:
    """Compare every embedded path with the tree, and read every chunk."""
    from blake3 import blake3

    found = {entry.path: entry for entry in section.index.manifest.entries}
    expected = {entry.path for entry in embedded if entry.meta.kind is Kind.FILE}
    if extra := section.index.extents.keys() ^ expected:
        raise not_as_asked(f"{shown(min(extra))} is embedded and was not to be, or the reverse")
    for entry in embedded:
        entry_found = found.get(entry.path)
        if entry_found is None or _facts(entry_found) != _facts(entry):
            raise not_as_asked(f"{shown(entry.path)} is not embedded as it is in the native image")
        if entry.meta.kind is Kind.FILE:
            hasher = blake3(key=key)
            for chunk in section.read(section.index.extents[entry.path]):
                hasher.update(chunk)
            if hasher.digest() != entry.content:
                raise not_as_asked(f"{shown(entry.path)} is embedded with another content")


def _facts(entry: ManifestEntry) -> tuple[object, ...]:
    meta = entry.meta
    return (meta.kind, meta.mode, meta.uid, meta.gid, meta.mtime, meta.size, meta.target, meta.xattrs)


def _on_disk(section: Section, entry: ManifestEntry) -> bool:
    return entry.meta.kind is Kind.FILE and entry.path not in section.index.extents and not entry.flags & Flag.MAIN


def _check_disk(image: BuiltImage, entries: Iterable[ManifestEntry]) -> None:
    """Hold the libraries that lie in the layers against their digests."""
    due = {entry.path: entry for entry in entries}
    pending = set(due)
    for member in search_built(image):
        entry = due.get(member.entry.path)
        if entry is None or member.content is None:
            continue
        hasher = hashlib.sha256()
        while block := member.content.read(_BUFFER):
            hasher.update(block)
        if hasher.digest() != entry.content:
            raise not_as_asked(f"{shown(entry.path)} in layer {member.layer} is not the file that is measured")
        pending.discard(entry.path)
    if pending:
        raise not_as_asked(f"{shown(min(pending))} is missing in the layers")
