"""One file system entry of an image, as metadata. Names are bytes: they are not always UTF-8."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Kind(IntEnum):
    """The numbers are those of the manifest format (docs/formats.md section 2)."""

    FILE = 0
    DIR = 1
    SYMLINK = 2
    CHAR = 3
    BLOCK = 4
    FIFO = 5


class Entry(Struct, frozen=True, kw_only=True):
    """Metadata of one path.

    `path` is absolute in the image, normalised (docs/formats.md, conventions). `mode` is 07777 bits only. `mtime` is in
    nanoseconds. `size` is of files, `target` of symlinks (verbatim). `hardlink` is non-empty where a file shares its
    inode with that earlier absolute path (same layer); its `size` is then the shared file's.
    """

    path: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    hardlink: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
