"""Temporary files of one running process, in the store's own file system so that a rename can commit them.

Each process works in a folder of its own, beside a lease (`lease.py`). What a killed process left is removed by the
next one that starts, and never while its owner lives.
"""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from sconify_cache import lease
from sconify_cache.folder import disk_errors


class Scratch:
    """The working folder of this process below `root`; made when first needed, removed when closed, or at exit. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._leaves: weakref.finalize[[Path, lease.Lease, int, int], Scratch] | None = None

    def new(self) -> Path:
        """Return a path that is not yet taken, for a file or a folder."""
        return self._ready() / os.urandom(12).hex()

    def sweep(self) -> None:
        """Remove what dead processes left. Cheap: one listing when nothing was left."""

        def bury(name: str) -> None:
            with suppress(FileNotFoundError):
                shutil.rmtree(self._root / name)

        lease.survey(self._root, bury)

    def close(self) -> None:
        """Remove the folder; it is made again when needed. For a process that ends without its interpreter's clean-up."""
        with self._lock:
            if self._leaves is not None:
                self._leaves()
            self._folder = self._leaves = None

    def _ready(self) -> Path:
        with self._lock:
            if self._folder is None:
                with disk_errors(self._root):
                    self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self.sweep()
                    own, descriptor = lease.take(self._root)
                    self._folder = self._root / own.name
                    self._folder.mkdir(mode=0o700)
                self._leaves = weakref.finalize(self, _leave, self._root, own, descriptor, os.getpid())
            return self._folder


def _leave(root: Path, own: lease.Lease, descriptor: int, pid: int) -> None:
    """Remove the folder, then the lease. A forked child inherits both and must leave its parent's alone."""
    if os.getpid() != pid:
        return
    shutil.rmtree(root / own.name, ignore_errors=True)
    with suppress(OSError):
        lease.release(root, own, descriptor)
