"""The disk below the store: folders that only their owner enters, and OS errors said in a user's words."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sconify_cache.errors import StoreError

_HINTS = {
    errno.ENOSPC: "free some space there (`doit cache gc`), or put the cache on a larger disk",
    errno.EDQUOT: "the quota is used up: free some space there (`doit cache gc`), or put the cache elsewhere",
    errno.EROFS: "the file system is read-only: name a cache folder that can be written",
    errno.EACCES: "check who owns it: it must belong to the user who builds",
    errno.EPERM: "check who owns it: it must belong to the user who builds",
    errno.EXDEV: "make the file in the store's own scratch folder, which lies in the same file system",
    errno.ENOLCK: "the file system has no locks: put the cache on a local disk",
}


def _free_bytes(path: Path) -> str:
    """Say how many bytes are left for us, asking the nearest folder that exists."""
    for folder in (path, *path.parents):
        try:
            there = os.statvfs(folder)
        except OSError:
            continue
        return f"{there.f_bavail * there.f_frsize} bytes free"
    return "free space unknown"


def store_error(error: OSError, path: Path) -> StoreError:
    """Turn an OS error into one for users: the path, the reason, the bytes that are free, the next move."""
    reason = error.strerror or str(error)
    detail = f" ({_free_bytes(path)})" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return StoreError(
        f"cache: {path}: {reason}{detail}", hint=_HINTS.get(error.errno or 0, "look at the disk and its permissions")
    )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise OS errors of the body as StoreError. Wrap only the store's own calls, never a caller's code."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path) from error


def database_error(error: sqlite3.Error, file: Path) -> StoreError:
    """Turn an SQLite error into one for users."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL:
        return store_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), file)
    if (code or 0) & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return StoreError(
            f"cache: {file}: {error}", hint="check the disk, its free space, and the folder's owner and permissions"
        )
    return StoreError(f"cache: {file}: {error}", hint="if it is damaged, delete it: it holds nothing that can't be made again")


def open_regular(path: Path) -> BinaryIO | None:
    """Open a file for reading; None where it is a link, folder, fifo or device. Raises OSError, FileNotFoundError too.

    NOFOLLOW and NONBLOCK: a symlink that was planted leads nowhere, a fifo does not hang us. NOATIME: access times mean
    "last use" in the store, and reading to verify is none.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, flags | os.O_NOATIME)
        except PermissionError:  # only a file's owner may ask for NOATIME
            descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def make_private(folder: Path) -> None:
    """Make `folder` (and its parents) so that only its owner can enter; repair the mode where it is wider.

    Raises StoreError where it is not a folder or belongs to somebody else: who owns a folder can swap what lies in it.
    """
    with disk_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.geteuid():
            message = f"cache: {folder} belongs to user {found.st_uid}, not to the user who builds ({os.geteuid()})"
            raise StoreError(message, hint="name another cache folder, or change the owner of this one")
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
