"""`dir:ROOTFS`: a folder as an image. Its config is the OCI image config `ROOTFS.json` beside it, if there is one.

The folder is as hostile as any image: every path is walked by descriptors with O_NOFOLLOW, so that no symlink in it
can lead out, not even one that is swapped in while it is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Protocol

from sconify_cache.digest import Digest
from sconify_tasks.errors import SconifyError, UnavailableError, UsageError
from sconify_tasks.image.config import identity_of, parse_config
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import names
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import check_path, join, outermost, settled_mtime, shown
from sconify_tasks.image.streams import CHUNK
from sconify_tasks.image.tar_write import order_key, write_tar

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CONFIG = 4 << 20
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}


class StatCache(Protocol):
    """Remembers content digests by stat, so that an unchanged tree is not read again. Paths are the host's."""

    def lookup(self, path: bytes, found: os.stat_result) -> Digest | None:
        """Return the BLAKE3 that `path` had when it had this very stat."""

    def remember(self, path: bytes, found: os.stat_result, content: Digest) -> None:
        """Keep a digest. `found` is from before the file was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    entry: Entry
    stat: os.stat_result
    parent: int  # descriptor of the directory it was seen in
    name: bytes


class RootfsSource:
    """A folder as a `SourceImage`."""

    def __init__(self, folder: Path, *, stat_cache: StatCache | None = None, platform: str = "linux/amd64") -> None:
        self._folder = folder.absolute()
        self._stat_cache = stat_cache
        try:
            self._root = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            msg = f"dir:{folder}: {error.strerror}"
            raise UnavailableError(msg, hint="name a folder that holds a root file system") from error
        self._config = _read_config(Path(f"{self._folder}.json"), platform)
        self._identity = ""
        # What the identity speaks of: whatever is read later must still be that.
        self._identified: dict[bytes, tuple[int, ...]] = {}
        self._lock = Lock()

    @property
    def name(self) -> str:
        """`dir:` and the folder."""
        return f"dir:{self._folder}"

    @property
    def config(self) -> ImageConfig:
        """From the JSON beside the folder; empty where there is none."""
        return self._config

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """None: a folder has no layers."""
        return ()

    @property
    def identity(self) -> str:
        """SHA-256 over every path's metadata and content and the config; what the stat cache knows is not read."""
        with self._lock:
            if not self._identity:
                self._identity = self._measured()
            return self._identity

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of one path."""
        with self._parent(path) as (parent, name):
            found = _lstat(parent, name) if parent is not None else None
            known = found is not None and stat.S_IFMT(found.st_mode) in _KINDS
            self._check_unchanged(path, found if known else None)
            return _entry(path, found, parent, name) if known and found and parent is not None else None

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        with self._parent(path) as (parent, name):
            if parent is not None:
                with suppress(NotADirectoryError, FileNotFoundError):
                    fd = os.open(name, _DIRECTORY, dir_fd=parent)
                    try:
                        return sorted(os.fsencode(child) for child in os.listdir(fd))  # noqa: PTH208
                    finally:
                        os.close(fd)
        return []

    @contextmanager
    def walk(self, roots: Iterable[bytes]) -> Iterator[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, parents first, siblings sorted."""
        walking = self._contents(outermost(list(roots)))
        try:
            yield walking
        finally:
            walking.close()

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file."""
        with self._parent(path) as (parent, name):
            found = _lstat(parent, name) if parent is not None else None
            if parent is None or found is None or not stat.S_ISREG(found.st_mode):
                msg = f"{shown(path)} is not a file in {self.name}"
                raise UsageError(msg, hint="check the path")
            if found.st_size > limit:
                msg = f"{shown(path)} has {found.st_size} bytes: more than the {limit} that are read here"
                raise UsageError(msg, hint="check the path")
            with _open(parent, name, found, path) as file:
                return file.read(min(limit, found.st_size))

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """Write the whole folder as one layer."""
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="sconify-") as scratch:
            path = Path(scratch) / "layer.tar"
            with path.open("wb") as out:
                written = write_tar(self._in_layer_order(), out)
            yield (Layer(diff_id=written.diff_id, size=written.size, path=path),)

    def close(self) -> None:
        """Close the folder's descriptor."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _measured(self) -> str:
        total = hashlib.sha256(identity_of(self._config, ()).encode())
        looked_at = {}
        for seen in self._descend([b"/"]):
            content = self._content_id(seen) if seen.entry.kind is Kind.FILE else ""
            total.update(_line(seen.entry, content))
            looked_at[seen.entry.path] = _fingerprint(seen.stat)
        self._identified = looked_at
        return total.hexdigest()

    def _check_unchanged(self, path: bytes, found: os.stat_result | None) -> None:
        """Raise where a path is no longer what the identity was taken of: records are filed under it."""
        if self._identified and self._identified.get(path) != (found and _fingerprint(found)):
            raise _changed(path)

    def _in_layer_order(self) -> Iterator[tuple[Entry, BinaryIO | None]]:
        entries = sorted((seen.entry for seen in self._descend([b"/"])), key=order_key)
        for entry in entries:
            if entry.kind is not Kind.FILE or entry.hardlink:
                yield entry, None
                continue
            with self._parent(entry.path) as (parent, name):
                found = _lstat(parent, name) if parent is not None else None
                if parent is None or found is None or not stat.S_ISREG(found.st_mode):
                    raise _changed(entry.path)
                with _open(parent, name, found, entry.path) as file:
                    yield entry, file

    def _contents(self, roots: list[bytes]) -> Generator[tuple[Entry, BinaryIO | None]]:
        for seen in self._descend(roots):
            if seen.entry.kind is Kind.FILE:
                with _open(seen.parent, seen.name, seen.stat, seen.entry.path) as file:
                    yield seen.entry, file
            else:
                yield seen.entry, None

    def _content_id(self, seen: _Seen) -> str:
        host = os.fsencode(self._folder) + seen.entry.path
        known = self._stat_cache.lookup(host, seen.stat) if self._stat_cache else None
        if known is None:
            known = _blake3(seen)
            if self._stat_cache:
                self._stat_cache.remember(host, seen.stat, known)
        return known

    def _descend(self, roots: list[bytes]) -> Iterator[_Seen]:
        inodes: dict[tuple[int, int], bytes] = {}
        for root in roots:
            with self._parent(root) as (parent, name):
                found = _lstat(parent, name) if parent is not None else None
                if found is None or stat.S_IFMT(found.st_mode) in _KINDS:
                    self._check_unchanged(root, found)
                if parent is None or found is None:
                    msg = f"{shown(root)} does not exist in {self.name}"
                    raise UsageError(msg, hint="check the path, or leave it out")
                for seen in _below(parent, name, root, found):
                    self._check_unchanged(seen.entry.path, seen.stat)
                    yield _link(seen, inodes)

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int | None, bytes]]:
        """Descriptor of the directory that holds `path`, and the name in it; None where a parent is no directory."""
        check_path(path)
        parts = names(path) or [b"."]
        current: int | None = os.dup(self._root)
        try:
            for part in parts[:-1]:
                assert current is not None
                following: int | None = None
                with suppress(FileNotFoundError, NotADirectoryError):
                    following = os.open(part, _DIRECTORY, dir_fd=current)
                os.close(current)
                current = following
                if current is None:
                    break
            yield current, parts[-1]
        finally:
            if current is not None:
                os.close(current)


def _below(parent: int, name: bytes, path: bytes, found: os.stat_result) -> Iterator[_Seen]:
    """Yield a path and what lies under it, with one open descriptor per level."""
    if stat.S_IFMT(found.st_mode) not in _KINDS:
        return  # a socket: it means nothing without its process, and tar can't hold it
    yield _Seen(entry=_entry(path, found, parent, name), stat=found, parent=parent, name=name)
    if not stat.S_ISDIR(found.st_mode):
        return
    levels: list[tuple[int, bytes, list[bytes]]] = []
    try:
        levels.append(_level(parent, name, path))
        while levels:
            fd, at, pending = levels[-1]
            if not pending:
                os.close(levels.pop()[0])
                continue
            child = pending.pop()
            status = _lstat(fd, child)
            if status is None or stat.S_IFMT(status.st_mode) not in _KINDS:
                continue
            child_path = join(at, child)
            yield _Seen(entry=_entry(child_path, status, fd, child), stat=status, parent=fd, name=child)
            if stat.S_ISDIR(status.st_mode):
                levels.append(_level(fd, child, child_path))
    finally:
        for fd, _, _ in levels:
            os.close(fd)


def _level(parent: int, name: bytes, path: bytes) -> tuple[int, bytes, list[bytes]]:
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        raise _unreadable(path, error) from error
    return fd, path, sorted((os.fsencode(child) for child in os.listdir(fd)), reverse=True)  # noqa: PTH208


def _lstat(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _entry(path: bytes, found: os.stat_result, parent: int, name: bytes) -> Entry:
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    return Entry(
        path=path,
        kind=kind,
        mode=found.st_mode & 0o7777,
        uid=found.st_uid,
        gid=found.st_gid,
        mtime=settled_mtime(path, found.st_mtime_ns),
        size=found.st_size if kind is Kind.FILE else 0,
        target=_target(path, parent, name) if kind is Kind.SYMLINK else b"",
        rdev=(os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in (Kind.CHAR, Kind.BLOCK) else (0, 0),
        xattrs=_xattrs(parent, name),
    )


def _target(path: bytes, parent: int, name: bytes) -> bytes:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        raise _changed(path) from error


def _xattrs(parent: int, name: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Read what belongs to the file and not to this host: capabilities and the user's own attributes."""
    path = b"/proc/self/fd/%d/%b" % (parent, name)
    try:
        kept = [
            key for key in os.listxattr(path, follow_symlinks=False) if key == "security.capability" or key.startswith("user.")
        ]
        return tuple((os.fsencode(key), os.getxattr(path, key, follow_symlinks=False)) for key in sorted(kept))
    except OSError:
        return ()  # a file system without them


def _link(seen: _Seen, inodes: dict[tuple[int, int], bytes]) -> _Seen:
    if seen.entry.kind is not Kind.FILE or seen.stat.st_nlink == 1:
        return seen
    first = inodes.setdefault((seen.stat.st_dev, seen.stat.st_ino), seen.entry.path)
    return seen if first == seen.entry.path else replace(seen, entry=replace(seen.entry, hardlink=first))


@contextmanager
def _open(parent: int, name: bytes, found: os.stat_result, path: bytes) -> Iterator[BinaryIO]:
    """Open the file that was seen, and no other that was put there since. Raises in the end if it was written to meanwhile."""
    try:
        fd = os.open(name, _FILE, dir_fd=parent)
    except OSError as error:
        raise _unreadable(path, error) from error
    with os.fdopen(fd, "rb", buffering=min(CHUNK, max(found.st_size, 2))) as file:
        now = os.fstat(fd)
        if (now.st_dev, now.st_ino, now.st_size) != (found.st_dev, found.st_ino, found.st_size):
            raise _changed(path)
        yield file
        if _fingerprint(os.fstat(fd)) != _fingerprint(found):
            raise _changed(path)


def _fingerprint(found: os.stat_result) -> tuple[int, ...]:
    """What a write, a chmod or a replacement changes; the kernel alone sets the change time."""
    return (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _blake3(seen: _Seen) -> Digest:
    from blake3 import blake3

    hasher = blake3()
    with _open(seen.parent, seen.name, seen.stat, seen.entry.path) as file:
        while data := file.read(CHUNK):
            hasher.update(data)
    return Digest(hasher.hexdigest())


def _line(entry: Entry, content: str) -> bytes:
    """One entry, length-prefixed: no two trees have the same bytes. Written out, as it is made for every file of every run."""
    numbers = b"%d %d %d %d %d %d %d %d %b" % (
        *(entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime, entry.size),
        *(*entry.rdev, content.encode()),
    )
    path, target, link, pairs = entry.path, entry.target, entry.hardlink, entry.xattrs
    lengths = (4 + 2 * len(pairs), len(path), path, len(target), target, len(link), link, len(numbers), numbers)
    return b"%d;%d:%b%d:%b%d:%b%d:%b" % lengths + b"".join(b"%d:%b" % (len(field), field) for pair in pairs for field in pair)


def _read_config(path: Path, platform: str) -> ImageConfig:
    system, _, architecture = platform.partition("/")
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG)
    except FileNotFoundError:
        return ImageConfig(os=system, architecture=architecture)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise UsageError(msg, hint="make it a readable OCI image config, or remove it") from error
    config = parse_config(data)
    config = replace(config, os=config.os or system, architecture=config.architecture or architecture)
    if f"{config.os}/{config.architecture}" != platform:
        msg = f"{path} is for {config.os}/{config.architecture}, not for {platform}"
        raise UsageError(msg, hint="correct its os and architecture, or choose another image")
    return config


def _changed(path: bytes) -> SconifyError:
    return SconifyError(f"{shown(path)} changed while it was read", hint="build again when nothing writes to the folder")


def _unreadable(path: bytes, error: OSError) -> SconifyError:
    return SconifyError(f"{shown(path)}: {error.strerror}", hint="make the folder readable, or build as its owner")
