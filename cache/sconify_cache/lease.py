"""Leases: proof that a process is alive, which the kernel takes back when it dies.

A lease is a small file that its process keeps locked (flock). kill -9, a crash or a power cut releases the lock, so
"is the owner alive?" is "can I lock it?". Pids and start times are in the file for people only: they mean nothing in
another pid namespace (a container that shares the folder) or on another machine (a network file system), a lock does.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from sconify_cache.folder import disk_errors

_SUFFIX = ".lease"


class Lease(Struct, frozen=True, kw_only=True):
    """A lease that a living process holds. `name` is unique in its folder, `since_ns` the time it was taken."""

    name: str
    since_ns: int


def take(folder: Path, *, now: Callable[[], int] = time.time_ns) -> tuple[Lease, int]:
    """Take a new lease in `folder`, which exists. Returns it and the descriptor whose lock is the lease."""
    with disk_errors(folder):
        while True:
            name = f"{os.getpid()}-{os.urandom(8).hex()}"
            descriptor = os.open(folder / (name + _SUFFIX), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Between open and flock a sweeper may have taken the unlocked file for a dead owner's and unlinked it.
                if os.fstat(descriptor).st_nlink:
                    since = now()
                    os.write(descriptor, f"{since} pid {os.getpid()}\n".encode())
                    return Lease(name=name, since_ns=since), descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def release(folder: Path, lease: Lease, descriptor: int) -> None:
    """Give a lease back."""
    with suppress(OSError):
        (folder / (lease.name + _SUFFIX)).unlink()
    os.close(descriptor)


def survey(folder: Path, bury: Callable[[str], None]) -> tuple[Lease, ...]:
    """Leases that are held now. For each dead owner, `bury(name)` first removes what it left, then its lease goes.

    Where `bury` raises OSError, or the folder can't be written, the dead lease stays for a later sweep.
    """
    held: list[Lease] = []
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(_SUFFIX))
    except OSError:
        return ()
    for name in names:
        with suppress(OSError):
            since = _since_or_bury(folder, name, bury)
            if since is not None:
                held.append(Lease(name=name.removesuffix(_SUFFIX), since_ns=since))
    return tuple(held)


def _since_or_bury(folder: Path, name: str, bury: Callable[[str], None]) -> int | None:
    """Start time of a held lease; None after a dead one was buried."""
    descriptor = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # A lease that is not yet written is as old as can be: it then protects everything.
        first = os.pread(descriptor, 64, 0).split(b" ")[0]
        return int(first) if first.isdigit() else 0
    else:
        bury(name.removesuffix(_SUFFIX))
        (folder / name).unlink(missing_ok=True)
        return None
    finally:
        os.close(descriptor)


@contextmanager
def held(folder: Path, *, now: Callable[[], int] = time.time_ns) -> Iterator[Lease]:
    """Hold a lease in `folder` for the body."""
    lease, descriptor = take(folder, now=now)
    try:
        yield lease
    finally:
        release(folder, lease, descriptor)
