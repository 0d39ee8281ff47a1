"""Opening files that others name or may have put there: a link is followed, and what is no file neither blocks nor is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, cast


def open_named(path: Path) -> BinaryIO | None:
    """Open a file for reading; None where a folder, a FIFO or a device is there. Raises OSError.

    `sconify_cache.folder.open_regular` is for the store, where nothing else than our own files may be.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would block
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return cast("BinaryIO", os.fdopen(descriptor, "rb"))


def is_anothers(found: os.stat_result) -> bool:
    """Whether the file belongs to a user who is neither the one who builds nor root: what is in it is that user's choice."""
    return found.st_uid not in (os.geteuid(), 0)
