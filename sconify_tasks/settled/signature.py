"""What a file's stat says of it, and from when on a stat can be trusted.

A write that falls into the same tick of the file system's clock as an earlier one leaves the same times. So a stat counts only
from some time after the file's last change (`sconify_cache.stat` has the same rule). Where the file system keeps times to the
nanosecond, its clock is the kernel's tick of at most 10 ms (CONFIG_HZ=100); else it may be FAT's two seconds.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import Final

FINE_NS: Final = 20 * 10**6
COARSE_NS: Final = 3 * 10**9
_SUB_MILLISECOND: Final = 10**6
_MASK: Final = 2**64 - 1
_PACKED: Final = struct.Struct("<QqqQQ")

Signature = list[int]
"""Size, modification and change time in ns, inode, device. A list, because it is compared with one that comes from JSON."""


def signature(found: os.stat_result) -> Signature:
    """The signature of a file whose stat this is."""
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def settles_at(found: os.stat_result) -> int:
    """From this time on (ns) no write can leave the stat that is there now."""
    if found.st_ctime_ns % _SUB_MILLISECOND:
        return found.st_ctime_ns + FINE_NS
    return max(found.st_ctime_ns, found.st_mtime_ns) + COARSE_NS


def tree_signature(folder: str) -> tuple[str, int]:
    """A digest over the stat of everything below a folder, itself included, and when it settles. Raises OSError.

    No symlink is followed but `folder` itself. The change time stands for the rest:
    mode, owner, link target, xattrs.
    """
    top = os.stat(folder)  # noqa: PTH116
    hasher, latest = hashlib.blake2b(_packed(top), digest_size=32), settles_at(top)
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as listing:
            entries = sorted(listing, key=_name)
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            name = os.fsencode(entry.name)
            hasher.update(b"%d/%b%b" % (len(name), name, _packed(found)))
            latest = max(latest, settles_at(found))
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
        hasher.update(b".")
    return hasher.hexdigest(), latest


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _packed(found: os.stat_result) -> bytes:
    return _PACKED.pack(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & _MASK, found.st_dev & _MASK)
