"""Reads layer tars that others wrote: tarfile underneath, nothing believed.

Members come out as `Entry` values with absolute, normalised paths. What could reach outside the root, or make the
reader allocate without bound, is a UsageError that names the member. Nothing is ever extracted.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NoReturn, cast

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import WHITEOUT, check_path, join, shown, split
from sconify_tasks.image.streams import Forward

_HEADERS = 1 << 20  # a path has at most 4 KiB, an xattr 64 KiB: nobody needs a megabyte of headers
_MEMBERS = 4_000_000
_HEADERS_OF_ONE = 16  # pax and GNU headers before one member; there is use for four
_TEXTS = 512 << 20  # paths, targets and attributes of a whole layer: they are kept
_TARGET = 4095  # PATH_MAX, and XATTR_NAME_MAX and XATTR_SIZE_MAX (Linux, limits.h)
_XATTR_NAME, _XATTR_VALUE = 255, 64 << 10
_HINT = "rebuild the image: an engine would refuse or misread this layer"
_XATTR = "SCHILY.xattr."
_SECOND = 1_000_000_000
_DIGITS = 12
_OPAQUE = b".wh..wh..opq"
_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.LNKTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIR,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.CHRTYPE: Kind.CHAR,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.FIFOTYPE: Kind.FIFO,
}


class Member(Struct, frozen=True, kw_only=True):
    """One member of a layer: its entry and where its content starts in the uncompressed tar.

    A hard link has the path it names in `entry.hardlink`, and neither size nor metadata of its own.
    """

    entry: Entry
    offset: int


class Whiteout(Struct, frozen=True, kw_only=True):
    """`path` is deleted from the layers below; or, when `opaque`, everything under it is."""

    path: bytes
    opaque: bool = False


def members(
    stream: BinaryIO, *, known: Callable[[int], int] | None = None
) -> Iterator[tuple[Member | Whiteout, BinaryIO | None]]:
    """Every member of an uncompressed layer tar, in its order, repeated paths included; the stream need not be seekable.

    The content stream comes with regular files, and is valid until the next member is taken. `known` is told where each
    member ends, and returns where to read on: there, or behind members that the caller knows. It needs a seekable stream.
    """
    source = stream if stream.seekable() else cast("BinaryIO", Forward(stream, hashed=False))
    try:
        archive = _Archive.open(fileobj=source, mode="r:", tarinfo=_Info, encoding="utf-8", errors="surrogateescape")
        yield from _members(archive, source, known)
    except (tarfile.TarError, EOFError, ValueError, ArithmeticError, RecursionError) as error:
        msg = f"damaged layer archive: {error}"
        raise UsageError(msg, hint="pull or build the image again") from error


def _members(
    archive: _Archive, source: BinaryIO, known: Callable[[int], int] | None
) -> Iterator[tuple[Member | Whiteout, BinaryIO | None]]:
    end = texts = 0
    for _ in range(_MEMBERS):
        if known is not None and archive.firstmember is None:  # tarfile reads the first one when it opens the archive
            archive.offset = known(archive.offset)
        try:
            info = _Info.following(archive, source) or archive.next()
        except tarfile.ReadError:
            if not 0 < end <= _length(source) < archive.offset:
                raise
            return  # the last file is whole, only its padding is not: engines accept it, and umoci writes it
        if info is None:
            return
        end = info.offset_data + (info.size if info.isreg() else 0)
        archive.members.clear()  # tarfile keeps every member it has seen
        archive.headers = 0
        member = _member(info)
        texts += _text_size(member)
        if texts > _TEXTS:
            msg = f"a layer with more than {_TEXTS >> 20} MiB of names and attributes"
            raise UsageError(msg, hint=_HINT)
        if isinstance(member, Member) and info.isreg():
            yield member, cast("BinaryIO", _Content(source, info.size))
        elif member is not None:
            yield member, None
    msg = f"a layer with more than {_MEMBERS} members"
    raise UsageError(msg, hint=_HINT)


def _text_size(member: Member | Whiteout | None) -> int:
    if not isinstance(member, Member):
        return len(member.path) if member else 0
    entry = member.entry
    return len(entry.path) + len(entry.target) + sum(len(name) + len(value) for name, value in entry.xattrs)


def _length(source: BinaryIO) -> int:
    """Tell the stream's length, after a read that met its end."""
    return source.tell() if isinstance(source, Forward) else source.seek(0, os.SEEK_END)


def _member(info: tarfile.TarInfo) -> Member | Whiteout | None:
    path = _inside(_raw(info.name))
    parent, name = split(path)
    if name.startswith(WHITEOUT):
        return _whiteout(parent, name)
    check_path(path)
    if info.type not in _KINDS or info.issparse():
        kind = "a sparse file" if info.issparse() else f"of unknown type {info.type!r}"
        msg = f"{shown(path)} is {kind}"
        raise UsageError(msg, hint=_HINT)
    return Member(entry=_entry(info, path), offset=info.offset_data)


def _entry(info: tarfile.TarInfo, path: bytes) -> Entry:
    kind = _KINDS[info.type]
    if info.size < 0 or not 0 <= info.uid < 1 << 32 or not 0 <= info.gid < 1 << 32:
        msg = f"{shown(path)}: size or owner out of range"
        raise UsageError(msg, hint=_HINT)
    if (info.ischr() or info.isblk()) and not (0 <= info.devmajor < 1 << 32 and 0 <= info.devminor < 1 << 32):
        msg = f"{shown(path)}: device number out of range"
        raise UsageError(msg, hint=_HINT)
    return Entry(
        path=path,
        kind=kind,
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        mtime=_nanoseconds(info),
        size=info.size if info.isreg() else 0,
        target=_target(info, path) if info.issym() else b"",
        hardlink=_inside(_raw(info.linkname)) if info.islnk() else b"",
        rdev=(info.devmajor, info.devminor) if info.ischr() or info.isblk() else (0, 0),
        xattrs=_xattrs(info, path),
    )


def _whiteout(parent: bytes, name: bytes) -> Whiteout | None:
    if parent != b"/":
        check_path(parent)
    if name == _OPAQUE:
        return Whiteout(path=parent, opaque=True)
    if name.startswith(WHITEOUT + WHITEOUT):
        return None  # bookkeeping of the AUFS driver (.wh..wh.plnk, .wh..wh.aufs), which engines skip
    path = join(parent, name.removeprefix(WHITEOUT))
    check_path(path)
    return Whiteout(path=path)


def _inside(name: bytes) -> bytes:
    """`./etc/x`, `etc/x` and `/etc/x` are `/etc/x`, as for every engine; a `..` is refused wherever it stands."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        msg = f"a layer member points outside the image: {shown(name)}"
        raise UsageError(msg, hint=_HINT)
    return b"/" + b"/".join(parts)


def _nanoseconds(info: tarfile.TarInfo) -> int:
    """From the decimal text where there is one: a float has lost the nanoseconds by then."""
    text = info.pax_headers.get("mtime")
    if text is None:
        return _ranged(int(info.mtime) * _SECOND)
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.lstrip("+-").partition(".")
    digits = fraction[:9].ljust(9, "0")
    if len(whole) > _DIGITS or not (whole + digits).isascii() or not (whole + digits).isdigit() or not whole:
        msg = f"bad mtime {text[:40]!r}"
        raise ValueError(msg)
    return _ranged(sign * (int(whole) * _SECOND + int(digits)))


def _ranged(nanoseconds: int) -> int:
    if not -(1 << 63) <= nanoseconds < 1 << 63:
        msg = f"mtime out of range: {nanoseconds} ns"
        raise ValueError(msg)
    return nanoseconds


def _target(info: tarfile.TarInfo, path: bytes) -> bytes:
    target = _raw(info.linkname)
    if not 0 < len(target) <= _TARGET or b"\0" in target:
        msg = f"{shown(path)} is a symlink to what no symlink can lead to: {shown(target)!r}"
        raise UsageError(msg, hint=_HINT)
    return target


def _xattrs(info: tarfile.TarInfo, path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    found = {_raw(key[len(_XATTR) :]): _raw(value) for key, value in info.pax_headers.items() if key.startswith(_XATTR)}
    for name, value in found.items():
        if not 0 < len(name) <= _XATTR_NAME or b"\0" in name or len(value) > _XATTR_VALUE:
            msg = f"{shown(path)} has an extended attribute that no file system takes: {shown(name)!r}"
            raise UsageError(msg, hint=_HINT)
    return tuple(sorted(found.items()))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# POSIX.1-2001, ustar: name, mode, uid, gid, size, mtime, chksum, typeflag, linkname, devmajor, devminor, prefix.
_USTAR = struct.Struct("100s8s8s8s12s12s8sc100s8x32x32x8s8s155s12x")
_PLAIN = b"0125x"


class _Archive(tarfile.TarFile):
    """Counts the headers before a member: they are read by recursion, and all kept until it comes."""

    headers = 0
    members: list[tarfile.TarInfo]
    firstmember: tarfile.TarInfo | None


class _Info(tarfile.TarInfo):
    """tarfile's reader without its leniencies: as strict as the engines' (Go's archive/tar), and bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Info:
        """What is plain ustar is taken apart here, three times as fast; everything else, and every error, is tarfile's."""
        found = cls._plain(buf, encoding, errors) if len(buf) == tarfile.BLOCKSIZE and buf[156] in _PLAIN else None
        return super().frombuf(buf, encoding, errors) if found is None else found

    @classmethod
    def following(cls, archive: tarfile.TarFile, source: BinaryIO) -> tarfile.TarInfo | None:
        """The next member where its header is plain and `source` can seek back; else None, and nothing has moved."""
        if isinstance(source, Forward) or archive.firstmember is not None:  # type: ignore[attr-defined]
            return None
        start, before = archive.offset, source.tell()
        source.seek(start)
        block = source.read(tarfile.BLOCKSIZE)
        whole = len(block) == tarfile.BLOCKSIZE and block[156] in _PLAIN and block[156:157] != tarfile.XHDTYPE
        found = cls._plain(block, "utf-8", "surrogateescape") if whole else None
        if found is None:
            source.seek(before)  # tarfile tells a cut archive by it
            return None
        found.offset, found.offset_data = start, start + tarfile.BLOCKSIZE
        body = -(-found.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if found.isreg() else 0
        archive.offset = found.offset_data + body
        return found

    @classmethod
    def _plain(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Info | None:
        name, mode, uid, gid, size, mtime, checksum, type_, link, major, minor, prefix = (
            field.partition(b"\0")[0] for field in _USTAR.unpack(buf)
        )
        found = cls()
        try:
            if int(checksum, 8) != sum(buf) - sum(buf[148:156]) + 8 * 0x20:
                return None
            found.mode, found.uid, found.gid = int(mode, 8), int(uid, 8), int(gid, 8)
            found.size, found.mtime = int(size, 8), int(mtime, 8)
            found.devmajor, found.devminor = int(major or b"0", 8), int(minor or b"0", 8)
        except ValueError:  # base 256, blanks, damage
            return None
        found.type = type_
        if type_ == tarfile.DIRTYPE:
            name = name.rstrip(b"/")
        found.name = (prefix + b"/" + name if prefix else name).decode(encoding, errors)
        found.linkname = link.decode(encoding, errors)
        return found

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            # tarfile takes a damaged header in the middle for the end: members behind it would stay unseen
            raise tarfile.ReadError(str(error)) from error

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Own parsing of the records: tarfile's regular expression takes quadratic time (CVE-2024-6232)."""
        records = _pax_records(self._body(archive))
        following = self.fromtarfile(archive)
        if self.type != tarfile.XHDTYPE:
            return following  # engines ignore global headers
        if any(key.startswith("GNU.sparse.") for key in records):
            self._refuse("is a sparse file")
        following._apply_pax_info(records, archive.encoding, archive.errors)  # type: ignore[attr-defined]  # noqa: SLF001
        following.offset = self.offset
        if "size" in records and following.isreg():
            archive.offset = following.offset_data + -(-following.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return following

    def _proc_gnulong(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        self._bounded(archive)
        return super()._proc_gnulong(archive)  # type: ignore[misc,no-any-return]

    def _proc_sparse(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        del archive
        return self._refuse("is a sparse file")

    def _body(self, archive: tarfile.TarFile) -> bytes:
        self._bounded(archive)
        padded = -(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        data: bytes = archive.fileobj.read(padded)
        if len(data) != padded:
            msg = "the archive ends inside a header"
            raise tarfile.ReadError(msg)
        return data[: self.size]

    def _bounded(self, archive: tarfile.TarFile) -> None:
        assert isinstance(archive, _Archive)
        archive.headers += 1
        if not 0 <= self.size <= _HEADERS:
            self._refuse(f"has a header of {self.size} bytes")
        if archive.headers > _HEADERS_OF_ONE:
            self._refuse(f"has more than {_HEADERS_OF_ONE} headers")

    def _refuse(self, what: str) -> NoReturn:
        msg = f"{shown(_raw(self.name))} {what}"
        raise UsageError(msg, hint=_HINT)


def _pax_records(body: bytes) -> dict[str, str]:
    r"""`LENGTH KEY=VALUE\\n` records; the last of a key wins."""
    records: dict[str, str] = {}
    at = 0
    while at < len(body):
        digits, _, rest = body[at : at + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = body[at + len(digits) + 1 : at + length].partition(b"=")
        at += length
        if not rest or not key or not equals or not value.endswith(b"\n"):
            msg = "damaged pax header"
            raise tarfile.ReadError(msg)
        records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
    return records


class _Content(io.RawIOBase):
    """A member's bytes; an archive that ends inside them is an error, never a short file."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        super().__init__()
        self._source, self._left = source, size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._source.read(wanted)
        if len(data) != wanted:
            msg = "damaged layer archive: it ends inside a file"
            raise UsageError(msg, hint="pull or build the image again")
        self._left -= wanted
        return data
