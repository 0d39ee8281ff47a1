"""From when on a file's stat can be trusted to change with the file.

A write that falls into the same tick of the file system's clock as an earlier one leaves the same times. Where the file system
keeps times to the nanosecond, its clock is the kernel's tick of at most 10 ms (CONFIG_HZ=100); else it may be FAT's of two
seconds.
"""

from __future__ import annotations

from typing import Final

FINE_NS: Final = 20 * 10**6
COARSE_NS: Final = 3 * 10**9
_SUB_MILLISECOND: Final = 10**6


def settled_at(modified: int, changed: int) -> int:
    """From this time on (ns) no write can leave these times of modification and change."""
    return changed + FINE_NS if changed % _SUB_MILLISECOND else max(changed, modified) + COARSE_NS
