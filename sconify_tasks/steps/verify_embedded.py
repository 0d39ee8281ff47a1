"""verify_embedded: the finished image is reopened: what was to be embedded is in the binary, byte for byte, and is measured.

The sconified ELF is read where it lies in its layer, all of it, and measured anew. Its data is held against the digests
that were taken with the content ids when the native image was read, not against those that it brings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import BinaryIO, cast

from msgspec.structs import replace

from sconify_tasks.ahead import Ahead
from sconify_tasks.assembled import assembled, not_as_asked
from sconify_tasks.binary_fs.digests import decode_digests
from sconify_tasks.binary_fs.index import Extent
from sconify_tasks.binary_fs.reading import Section, open_section
from sconify_tasks.elf_place import FilePart
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.model import BuiltImage
from sconify_tasks.image.paths import shown
from sconify_tasks.image.search import search_built
from sconify_tasks.image.tar_read import Member, members
from sconify_tasks.sconified import FILE_SYSTEM, read_sconified
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.step import Context, Outputs

_BUFFER = 1 << 17
_THREADS = 2


def run(context: Context) -> Outputs:
    """Raise VerificationError unless the binary in the layers carries exactly the tree that was selected."""
    image = assembled(context)
    embedded = context.world.trees.get(context.blob("embedded"))
    part = _binary(image, context.text("binary").encode())
    section = _section(context, part)
    with section.file:
        _check_tree(section, embedded)
        on_disk = [entry for entry in section.index.manifest.entries if _on_disk(section, entry)]
    digests = decode_digests(context.world.store.get(context.blob("digests")))
    _check_contents(section, part, _due(section, [entry for entry in embedded if entry.meta.kind is Kind.FILE], digests))
    _check_disk(image, on_disk)
    return Outputs(facts={"protected": len(embedded)})


def _binary(image: BuiltImage, binary: bytes) -> FilePart:
    """Where the binary lies in the topmost layer that has one."""
    for layer in reversed(image.layers):  # those below the topmost that has it are not read for it
        found = None
        with layer.path.open("rb") as file:
            for member, content in members(file):  # whole: of two in one layer the later counts
                if isinstance(member, Member) and member.entry.path == binary and content is not None:
                    found = FilePart(path=layer.path, offset=member.offset, size=member.entry.size, name=shown(binary))
        if found is not None:
            return found
    raise not_as_asked(f"{shown(binary)} is in no layer")


def _section(context: Context, part: FilePart) -> Section:
    """Open the embedded file system of a sconified ELF whose measurement is the session's."""
    sconified = read_sconified(part)
    if sconified.config.binary_fs != context.text("root"):
        raise not_as_asked("the measured config names another embedded file system")
    measured = measure(part, sconified.config)
    if measured != context.text("mrenclave") or sconified.sigstruct.mrenclave != measured:
        raise not_as_asked("the binary does not measure as the session says")
    place = sconified.sections[FILE_SYSTEM]
    # The caller closes it: the section is read from it.
    file = _layer_of(part)
    try:
        root = bytes.fromhex(sconified.config.binary_fs)
        return open_section(file, offset=part.offset + place.offset, size=place.size, root=root)
    except MalformedError:
        file.close()
        raise


def _layer_of(part: FilePart) -> BinaryIO:
    # Without a buffer: whole chunks are read.
    return cast("BinaryIO", part.path.open("rb", buffering=0))


def _check_tree(section: Section, embedded: Iterable[ManifestEntry]) -> None:
    """Compare every embedded path with the tree."""
    found = {entry.path: entry for entry in section.index.manifest.entries}
    expected = {entry.path for entry in embedded if entry.meta.kind is Kind.FILE}
    if extra := section.index.extents.keys() ^ expected:
        raise not_as_asked(f"{shown(min(extra))} is embedded and was not to be, or the reverse")
    for entry in embedded:
        entry_found = found.get(entry.path)
        if entry_found is None or _facts(entry_found) != _facts(entry):
            raise not_as_asked(f"{shown(entry.path)} is not embedded as it is in the native image")


def _due(section: Section, files: Iterable[ManifestEntry], digests: Mapping[bytes, bytes]) -> list[Extent]:
    """Every part of the data that is some file's, once, in the order in which they lie; each as the native image had it."""
    due: dict[int, Extent] = {}
    for entry in files:
        extent = section.index.extents[entry.path]
        if extent.digests != digests.get(entry.content) or extent.size != entry.meta.size:
            raise not_as_asked(f"{shown(entry.path)} is embedded with another content")
        due[extent.offset] = extent
    return [due[offset] for offset in sorted(due)]


def _check_contents(section: Section, part: FilePart, extents: list[Extent]) -> None:
    """Read every chunk, on threads; each has a descriptor of its own."""

    def check(some: list[Extent]) -> None:
        with _layer_of(part) as file:
            replace(section, file=file).check(some)

    with Ahead[None]() as threads:
        for checked in [threads.do(partial(check, extents[start::_THREADS])) for start in range(_THREADS)]:
            threads.result(checked)


def _facts(entry: ManifestEntry) -> tuple[object, ...]:
    meta = entry.meta
    return (meta.kind, meta.mode, meta.uid, meta.gid, meta.mtime, meta.size, meta.target, meta.xattrs)


def _on_disk(section: Section, entry: ManifestEntry) -> bool:
    return entry.meta.kind is Kind.FILE and entry.path not in section.index.extents and not entry.flags & Flag.MAIN


def _check_disk(image: BuiltImage, entries: Iterable[ManifestEntry]) -> None:
    """Hold the libraries that lie in the layers against their digests."""
    due = {entry.path: entry for entry in entries}
    if not due:
        return
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
