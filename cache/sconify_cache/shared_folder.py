"""Files in a folder that users or machines share, perhaps over a network file system: `NAME/ab/cdef…`.

The folder is nobody's in particular. Whoever made it decides who may write (its mode, group and set-group-id bit go on to
the folders below); nothing that is read is believed here, and nothing there can stop us: links are not followed, fifos and
devices are not opened, sizes are bounded by whoever asks. No locks, no hard links and no ownership are relied on: a file is
written beside its place and renamed. Raises OSError; what that means is the caller's business.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from sconify_cache.digest import Digest
from sconify_cache.folder import open_regular

# What is longer there was left by a dead process: nothing that is published takes a day to write.
_ABANDONED_NS: Final = 24 * 3600 * 10**9


class SharedFolder:
    """Files named by digests, below `folder`, which exists."""

    def __init__(self, folder: Path, *, now: Callable[[], int] = time.time_ns) -> None:
        self._folder = folder
        self._now = now
        self._ready = False

    def open(self, kind: str, name: Digest, *, size: int | None = None) -> BinaryIO | None:
        """Open a file; None where there is none, or none that is regular and has `size` bytes."""
        try:
            stream = open_regular(self._locate(kind, name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stream is not None and size is not None and os.fstat(stream.fileno()).st_size != size:
            stream.close()
            return None
        return stream

    def write(self, kind: str, name: Digest, pieces: Iterable[bytes]) -> None:
        """Put a file there, complete or not at all; replaces what is there."""
        final = self._locate(kind, name)
        waiting = self._folder / "tmp"
        self._make(waiting)
        if not self._ready:
            self._ready = True
            self._sweep(waiting)
        temporary = waiting / os.urandom(16).hex()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                for piece in pieces:
                    file.write(piece)
                # For everybody who may enter the folder, whatever the umask is.
                os.fchmod(file.fileno(), 0o444)
            self._make(final.parent.parent)
            self._make(final.parent)
            temporary.rename(final)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _locate(self, kind: str, name: Digest) -> Path:
        digest = Digest(name)
        return self._folder / kind / digest[:2] / digest[2:]

    def _make(self, folder: Path) -> None:
        """Make a folder as open as the shared one."""
        try:
            folder.mkdir()
        except FileExistsError:
            return
        with suppress(OSError):  # file systems that know no modes
            folder.chmod(stat.S_IMODE(self._folder.stat().st_mode))

    def _sweep(self, waiting: Path) -> None:
        with suppress(OSError):
            for entry in os.scandir(waiting):
                with suppress(OSError):  # somebody else's
                    if self._now() - entry.stat(follow_symlinks=False).st_mtime_ns > _ABANDONED_NS:
                        Path(entry.path).unlink()
