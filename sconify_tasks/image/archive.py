"""The files inside an archive (a tar, plain or compressed), by name: `oci-archive:` and `docker-archive:` are read through it.

An uncompressed archive is read in place, whatever its size: only its headers are looked at, and contents are slices of
it. A compressed one is unpacked into one nameless temporary file first.
"""

from __future__ import annotations

import io
import lzma
import os
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

from sconify_tasks.errors import SconifyError, UnavailableError, UsageError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.extent import Extent
from sconify_tasks.image.paths import join, split
from sconify_tasks.image.streams import CHUNK, Forward, uncompressed
from sconify_tasks.image.tar_read import Member, members
from sconify_tasks.named_file import open_named

_MEMBERS = 100_000  # an archive has some files per layer, and an image at most 127 layers
_LINKS = 8
_XZ = b"\xfd7zXZ"
_BZIP2 = b"BZh"
_XZ_MEMORY = 256 << 20  # the best preset needs 65 MiB
_HINT = "save or copy the image again"


class ArchiveFiles:
    """Symbolic and hard links inside the archive are followed: engines save a shared layer once."""

    def __init__(self, path: Path, *, label: str) -> None:
        self._label = label
        self._file = _open(path, label)
        self._places: dict[bytes, tuple[int, int]] = {}
        self._links: dict[bytes, bytes] = {}
        try:
            self._read_headers()
        except UsageError as error:
            self.close()
            raise UsageError(f"{label}: {error.message}", hint=_HINT) from error
        except BaseException:
            self.close()
            raise

    @property
    def label(self) -> str:
        """As given."""
        return self._label

    def names(self) -> list[str]:
        """Every file's name, sorted; links are none."""
        return sorted(name[1:].decode("utf-8", "surrogateescape") for name in self._places)

    def extent(self, name: str) -> Extent:
        """Open a file of the archive."""
        place = self._find(name)
        if place is None:
            msg = f"{self._label} has no {name}"
            raise UnavailableError(msg, hint=_HINT)
        file = os.fdopen(os.dup(self._file.fileno()), "rb", buffering=0)
        return Extent(file=cast("BinaryIO", file), start=place[0], size=place[1])

    def size(self, name: str) -> int | None:
        """Its length in bytes; None where it is missing."""
        place = self._find(name)
        return None if place is None else place[1]

    def close(self) -> None:
        """Close the archive. Extents that were opened stay."""
        self._file.close()

    def _find(self, name: str) -> tuple[int, int] | None:
        path = b"/" + name.encode("utf-8", "surrogateescape")
        for _ in range(_LINKS):
            if path not in self._links:
                return self._places.get(path)
            path = self._links[path]
        return None

    def _read_headers(self) -> None:
        length = os.fstat(self._file.fileno()).st_size
        for number, (member, _) in enumerate(members(Extent.whole(self._file).open())):
            if number == _MEMBERS:
                msg = f"an archive with more than {_MEMBERS} members"
                raise UsageError(msg, hint=_HINT)
            if not isinstance(member, Member) or member.entry.kind is Kind.DIR:
                continue
            entry = member.entry
            if entry.path in self._places or entry.path in self._links:
                msg = f"it holds {entry.path[1:].decode(errors='replace')[:80]} twice"  # which of them counts, readers disagree
                raise UsageError(msg, hint=_HINT)
            if entry.kind is Kind.SYMLINK or entry.hardlink:
                self._links[entry.path] = entry.hardlink or _inside(split(entry.path)[0], entry.target)
            elif entry.kind is Kind.FILE:
                if member.offset + entry.size > length:
                    msg = "damaged archive: it ends inside a file"
                    raise UsageError(msg, hint=_HINT)
                self._places[entry.path] = (member.offset, entry.size)


def _inside(folder: bytes, target: bytes) -> bytes:
    """Resolve a symlink by its text; what leads out of the archive ends at its root, and is missing there."""
    at = b"/" if target.startswith(b"/") else folder
    for name in target.split(b"/"):
        if name == b"..":
            at = split(at)[0]
        elif name not in (b"", b"."):
            at = join(at, name)
    return at


def _open(path: Path, label: str) -> BinaryIO:
    try:
        file = open_named(path)
    except OSError as error:
        msg = f"{label}: {error.strerror}"
        raise UnavailableError(msg, hint="check the file's name") from error
    if file is None:
        msg = f"{label} is not a regular file"
        raise UnavailableError(msg, hint="name an archive in a file; a folder is oci:DIR")
    try:
        plain = _plain(file)
        if plain is file:
            return file
        unpacked = _spilled(plain, label)
    except BaseException:
        file.close()
        raise
    file.close()
    return unpacked


def _plain(file: BinaryIO) -> BinaryIO:
    magic = file.read(5)
    file.seek(0)
    if magic == _XZ:
        return cast("BinaryIO", io.BufferedReader(_Xz(file), CHUNK))
    if magic.startswith(_BZIP2):
        import bz2

        return cast("BinaryIO", bz2.BZ2File(file))
    return uncompressed(file)


def _spilled(plain: BinaryIO, label: str) -> BinaryIO:
    spill = cast("BinaryIO", tempfile.TemporaryFile(prefix="sconify-"))  # noqa: SIM115
    try:
        bounded = Forward(plain, hashed=False)
        while data := bounded.read(CHUNK):
            spill.write(data)
        spill.flush()
    except (OSError, EOFError, lzma.LZMAError) as error:
        spill.close()
        msg = f"{label} can't be unpacked: {error}"
        raise SconifyError(
            msg, hint=f"make room in {tempfile.gettempdir()} if it is full, else save the image again"
        ) from error
    except UsageError as error:
        spill.close()
        raise UsageError(f"{label}: {error.message}", hint=_HINT) from error
    except BaseException:
        spill.close()
        raise
    return spill


class _Xz(io.RawIOBase):
    """Unpacks within bounded memory, which `lzma.LZMAFile` leaves to the file's own headers."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._new()

    def _new(self) -> None:
        self._unpacking = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        while True:
            if self._unpacking.eof:
                rest = self._unpacking.unused_data.lstrip(b"\0") or self._source.read(CHUNK).lstrip(b"\0")
                if not rest:
                    return 0
                self._new()
            else:
                rest = self._source.read(CHUNK) if self._unpacking.needs_input else b""
                if not rest and self._unpacking.needs_input:
                    msg = "it ends too early"
                    raise EOFError(msg)
            if data := self._unpacking.decompress(rest, len(view)):
                view[: len(data)] = data
                return len(data)
