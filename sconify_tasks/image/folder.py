"""What lies below a folder, by descriptors with O_NOFOLLOW: no symlink can lead out, not even one swapped in meanwhile."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, cast

from sconify_tasks.errors import SconifyError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import join, settled_mtime, shown
from sconify_tasks.image.source import Fingerprint
from sconify_tasks.image.streams import CHUNK

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
CONTENT_ID = 32
Xattrs = tuple[tuple[bytes, bytes], ...]


class Seen(NamedTuple):
    """A path of the image as it was found: the host's descriptor of its directory, its name there, its stat."""

    path: bytes
    parent: int
    name: bytes
    stat: os.stat_result
    hardlink: bytes = b""

    @property
    def kind(self) -> Kind:
        """What it is."""
        return KINDS[stat.S_IFMT(self.stat.st_mode)]

    def entry(self, *, xattrs: Xattrs | None = None) -> Entry:
        """Its metadata; with these extended attributes, where they are not to be looked for."""
        found, kind = self.stat, self.kind
        return Entry(
            path=self.path,
            kind=kind,
            mode=found.st_mode & 0o7777,
            uid=found.st_uid,
            gid=found.st_gid,
            mtime=settled_mtime(self.path, found.st_mtime_ns),
            size=found.st_size if kind is Kind.FILE else 0,
            target=self.target() if kind is Kind.SYMLINK else b"",
            hardlink=self.hardlink,
            rdev=self.device(),
            xattrs=self.xattrs() if xattrs is None else xattrs,
        )

    def target(self) -> bytes:
        """Where a symlink leads."""
        try:
            return os.readlink(self.name, dir_fd=self.parent)
        except OSError as error:
            raise changed(self.path) from error

    def device(self) -> tuple[int, int]:
        """Major and minor number of a device, else 0 and 0."""
        if self.kind in (Kind.CHAR, Kind.BLOCK):
            return os.major(self.stat.st_rdev), os.minor(self.stat.st_rdev)
        return 0, 0

    def xattrs(self) -> Xattrs:
        """What belongs to the file and not to this host: capabilities and the user's own attributes."""
        path = b"/proc/self/fd/%d/%b" % (self.parent, self.name)
        try:
            found = os.listxattr(path, follow_symlinks=False)
            if not found:
                return ()
            kept = [key for key in found if key == "security.capability" or key.startswith("user.")]
            return tuple((os.fsencode(key), os.getxattr(path, key, follow_symlinks=False)) for key in sorted(kept))
        except OSError:
            return ()  # a file system without them

    def line(self) -> tuple[bytes, bytes]:
        """All of it in bytes that no other path has, before and after the content's id; made for every path of every run."""
        found, kind = self.stat, self.kind
        target = self.target() if kind is Kind.SYMLINK else b""
        size, content = (found.st_size, CONTENT_ID) if kind is Kind.FILE else (0, 0)
        pairs = self.xattrs()
        numbers = (kind, found.st_mode & 0o7777, found.st_uid, found.st_gid, settled_mtime(self.path, found.st_mtime_ns), size)
        lengths = (len(self.path), len(target), len(self.hardlink), content, 2 * len(pairs))
        head = b"%d %d %d %d %d %d %d %d %d %d %d %d %d\n" % (*numbers, *self.device(), *lengths)
        fields = b"".join(b"%d\n%b" % (len(field), field) for pair in pairs for field in pair)
        return head + self.path + target + self.hardlink, fields

    def open(self) -> int:
        """Descriptor of the file that was seen, and of no other that was put there since."""
        try:
            descriptor = os.open(self.name, _FILE, dir_fd=self.parent)
        except OSError as error:
            raise unreadable(self.path, error) from error
        now = os.fstat(descriptor)
        if (now.st_dev, now.st_ino, now.st_size) != (self.stat.st_dev, self.stat.st_ino, self.stat.st_size):
            os.close(descriptor)
            raise changed(self.path)
        return descriptor

    def check(self, descriptor: int) -> None:
        """Raise where the file was written to since it was seen."""
        if fingerprint(os.fstat(descriptor)) != fingerprint(self.stat):
            raise changed(self.path)


class SeenFile(io.RawIOBase):
    """The content of a file that was seen, opened when it is first used. `finish` raises if it was written to meanwhile."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen
        self._descriptor = -1
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """As of any file."""
        return self._opened().read(size)

    def readinto(self, buffer: object) -> int:
        """As of any file."""
        return cast("io.BufferedReader", self._opened()).readinto(cast("bytearray", buffer))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As of any file."""
        return self._opened().seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._opened().tell()

    def fileno(self) -> int:
        """As of any file: the kernel may copy from it."""
        if self._descriptor < 0:
            self._descriptor = self._seen.open()
        return self._descriptor

    def hand_over(self) -> tuple[int, Callable[[int], None]]:
        """As `WholeFile`. Nothing may have been read."""
        descriptor, self._descriptor = self.fileno(), -1
        return descriptor, self._seen.check

    def finish(self) -> None:
        """Check and close what was opened."""
        if self._descriptor >= 0:
            self._seen.check(self._descriptor)
            self._close()

    def close(self) -> None:
        """Close what was opened."""
        self._close()
        super().close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        elif self._descriptor >= 0:
            os.close(self._descriptor)
        self._file, self._descriptor = None, -1

    def _opened(self) -> BinaryIO:
        if self._file is None:
            size = self._seen.stat.st_size
            self._file = os.fdopen(self.fileno(), "rb", buffering=min(CHUNK, max(size, 2)))
        return self._file


def descend(parent: int, name: bytes, path: bytes, found: os.stat_result) -> Iterator[Seen]:
    """Yield a path and what lies under it, parents first, siblings sorted, with one open descriptor per level."""
    if stat.S_IFMT(found.st_mode) not in KINDS:
        return  # a socket: it means nothing without its process, and tar can't hold it
    yield Seen(path, parent, name, found)
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
            status = lstat(fd, child)
            if status is None or stat.S_IFMT(status.st_mode) not in KINDS:
                continue
            child_path = join(at, child)
            yield Seen(child_path, fd, child, status)
            if stat.S_ISDIR(status.st_mode):
                levels.append(_level(fd, child, child_path))
    finally:
        for fd, _, _ in levels:
            os.close(fd)


def fingerprints(root: int) -> dict[bytes, Fingerprint]:
    """What `descend` finds below an open folder, as fingerprints by path, in its order.

    Entered for every path on every run: it does by itself what `descend` does, with no object for a path but these.
    """
    stat_of, kinds, directory = os.stat, KINDS, stat.S_IFDIR
    found = {b"/": fingerprint(os.fstat(root))}
    fd, _, pending = _level(root, b".", b"/")
    levels = [(fd, b"", pending)]
    try:
        while levels:
            fd, at, pending = levels[-1]
            while pending:
                child = pending.pop()
                try:
                    seen = stat_of(child, dir_fd=fd, follow_symlinks=False)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                kind = seen.st_mode & 0o170000
                if kind not in kinds:
                    continue
                path = at + b"/" + child
                found[path] = (seen.st_dev, seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
                if kind == directory:
                    levels.append(_level(fd, child, path))
                    break
            else:
                os.close(levels.pop()[0])
    finally:
        for fd, _, _ in levels:
            os.close(fd)
    return found


def _level(parent: int, name: bytes, path: bytes) -> tuple[int, bytes, list[bytes]]:
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        raise unreadable(path, error) from error
    return fd, path, sorted((os.fsencode(child) for child in os.listdir(fd)), reverse=True)  # noqa: PTH208


def lstat(parent: int, name: bytes) -> os.stat_result | None:
    """Stat of a name in a directory; None where there is nothing."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def linked(seen: Seen, inodes: dict[tuple[int, int], bytes]) -> Seen:
    """Give a file that shares its inode with an earlier one that one's path."""
    if seen.stat.st_nlink == 1 or not stat.S_ISREG(seen.stat.st_mode):
        return seen
    first = inodes.setdefault((seen.stat.st_dev, seen.stat.st_ino), seen.path)
    return seen if first == seen.path else seen._replace(hardlink=first)


def fingerprint(found: os.stat_result) -> Fingerprint:
    """What a write, a chmod or a replacement changes; the kernel alone sets the change time."""
    return (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def changed(path: bytes) -> SconifyError:
    """The error of a folder that is written to while it is read."""
    return SconifyError(f"{shown(path)} changed while it was read", hint="build again when nothing writes to the folder")


def unreadable(path: bytes, error: OSError) -> SconifyError:
    """The error of what may not be read."""
    return SconifyError(f"{shown(path)}: {error.strerror}", hint="make the folder readable, or build as its owner")
