"""What a file's stat says of it. It counts only from some time after the file's last change (`sconify_cache.ticks`)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from sconify_cache.ticks import settled_at

Signature = list[int]
"""Size, modification and change time in ns, inode, device. A list, because it is compared with one that comes from JSON."""


def signature(found: os.stat_result) -> Signature:
    """The signature of a file whose stat this is."""
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def settles_at(found: os.stat_result) -> int:
    """As `settled_at`, of a stat."""
    return settled_at(found.st_mtime_ns, found.st_ctime_ns)


def settled_before(paths: Iterable[str], at: int) -> bool:
    """Whether none of these files can have changed since `at` (ns) without a change of its stat, nor was changed after it."""
    for path in paths:
        try:
            if settles_at(os.stat(path)) > at:  # noqa: PTH116
                return False
        except OSError:
            continue
    return True
