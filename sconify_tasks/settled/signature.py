"""What a file's stat says of it, and from when on a stat can be trusted.

A write that falls into the same tick of the file system's clock as an earlier one leaves the same times. So a stat counts only
from some time after the file's last change (`sconify_cache.stat` has the same rule). Where the file system keeps times to the
nanosecond, its clock is the kernel's tick of at most 10 ms (CONFIG_HZ=100); else it may be FAT's two seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

FINE_NS: Final = 20 * 10**6
COARSE_NS: Final = 3 * 10**9
_SUB_MILLISECOND: Final = 10**6

Signature = list[int]
"""Size, modification and change time in ns, inode, device. A list, because it is compared with one that comes from JSON."""


def signature(found: os.stat_result) -> Signature:
    """The signature of a file whose stat this is."""
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def settles_at(found: os.stat_result) -> int:
    """From this time on (ns) no write can leave the stat that is there now."""
    return settled_at(found.st_mtime_ns, found.st_ctime_ns)


def settled_at(modified: int, changed: int) -> int:
    """As `settles_at`, of these two times (ns)."""
    return changed + FINE_NS if changed % _SUB_MILLISECOND else max(changed, modified) + COARSE_NS


def settled_before(paths: Iterable[str], at: int) -> bool:
    """Whether none of these files can have changed since `at` (ns) without a change of its stat, nor was changed after it."""
    for path in paths:
        try:
            if settles_at(os.stat(path)) > at:  # noqa: PTH116
                return False
        except OSError:
            continue
    return True
