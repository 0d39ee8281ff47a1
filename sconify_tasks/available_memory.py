"""How much memory this process may still take: what the machine has, and what its control groups leave.

Sources: proc(5), `MemAvailable` of /proc/meminfo; cgroups(7) and the kernel's cgroup-v2.rst (`memory.max`, `memory.current`)
and cgroup-v1/memory.rst (`memory.limit_in_bytes`, `memory.usage_in_bytes`). A group's limit holds for all groups below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_KIB = 1024
_FILES = {True: ("memory.max", "memory.current"), False: ("memory.limit_in_bytes", "memory.usage_in_bytes")}
_NO_LIMIT = 1 << 60
"""What version 1 calls unlimited is a very large number."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes; None where nothing tells."""
    known = [*_machine(root), *_groups(root)]
    return min(known) if known else None


def _machine(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                yield int(rest.split()[0]) * _KIB


def _groups(root: Path) -> Iterator[int]:
    """What each group that this process is in leaves."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
            # In a container the path is the host's, and what is mounted is the container's own group.
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                yield from _left(top / group.relative_to("/"), _FILES[not controllers])


def _left(group: Path, files: tuple[str, str]) -> Iterator[int]:
    with suppress(OSError, ValueError):
        limit, used = (int((group / name).read_text()) for name in files)
        if limit < _NO_LIMIT:
            yield max(0, limit - used)
