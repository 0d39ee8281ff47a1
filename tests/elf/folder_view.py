"""A folder as an image's file system: what a FileView is, without any of its sources."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind

KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}


class FolderView:
    """Refuses paths with a symlink or `..` in them, as a layer's index has no such paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.read_paths: list[bytes] = []

    def _real(self, path: bytes) -> Path:
        assert path.startswith(b"/")
        assert os.path.normpath(path) == path, f"not normalised: {path!r}"
        real = self.root / os.fsdecode(path[1:])
        assert not any(parent.is_symlink() for parent in real.parents if parent != self.root and self.root in parent.parents)
        return real

    def lstat(self, path: bytes) -> Entry | None:
        real = self._real(path)
        try:
            status = real.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        target = os.fsencode(real.readlink()) if kind is Kind.SYMLINK else b""
        return Entry(path=path, kind=kind, mode=status.st_mode & 0o7777, size=status.st_size, target=target)

    def read(self, path: bytes, *, limit: int) -> bytes:
        found = self.lstat(path)
        if found is None or found.kind is not Kind.FILE or found.size > limit:
            raise UsageError(f"{path!r} can't be read")
        self.read_paths.append(path)
        return self._real(path).read_bytes()

    def listdir(self, path: bytes) -> list[bytes]:
        try:
            return [os.fsencode(found.name) for found in self._real(path).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
