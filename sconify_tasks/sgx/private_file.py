"""Files that hold keys: 0600 in a 0700 folder, complete or absent, and made once even when several processes race."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sconify_tasks.errors import StoreError
from sconify_tasks.named_file import is_anothers, open_named


def read_private(path: Path, *, limit: int = 1024 * 1024) -> bytes | None:
    """Return a file's content; None where there is none. StoreError where it can't be read, or is not ours alone."""
    try:
        file = open_named(path)
        if file is None:
            raise StoreError(f"{path} is not a regular file", hint="restore it from a backup")
        with file:
            found = os.fstat(file.fileno())
            mode = found.st_mode
            if is_anothers(found):
                raise StoreError(f"{path} belongs to user {found.st_uid}", hint="remove it, or name another folder")
            if mode & 0o077:
                raise StoreError(f"{path} is open to others (mode {mode & 0o777:04o})", hint=f"chmod 600 {path}")
            content = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror}") from error
    if len(content) > limit:
        raise StoreError(f"{path} is larger than {limit} bytes")
    return content


def create_private(path: Path, content: bytes) -> bytes:
    """Create the file if it is absent; either way return what it holds now. StoreError where the disk refuses."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = _write_beside(path, content)
        try:
            # A hard link fails where the name exists: of two processes that both found nothing, one wins and both use it.
            os.link(written, path)
        except FileExistsError:
            pass
        finally:
            written.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path} can't be written: {error.strerror}") from error
    found = read_private(path)
    if found is None:
        raise StoreError(f"{path} disappeared while it was made")
    return found


def replace_private(path: Path, content: bytes) -> None:
    """Write the file anew, atomically. StoreError where the disk refuses."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = _write_beside(path, content)
        try:
            written.replace(path)
        except OSError:
            written.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path} can't be written: {error.strerror}") from error


def _write_beside(path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
