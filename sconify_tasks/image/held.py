"""What the archives of an engine brought is held as long as the source is open: a file comes from the engine once.

An archive costs the engine a process and some 60 ms, whatever its size. Contents lie in one temporary file without a name,
which vanishes with the process, whatever ends it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from threading import Lock
from typing import BinaryIO

from sconify_tasks.image.entry import Entry
from sconify_tasks.image.paths import split
from sconify_tasks.image.streams import CHUNK, part

LIMIT = 512 << 20


@dataclass(slots=True)
class Held:
    """Contents by path, and the entries of archives that were read to their end. Safe for many threads."""

    limit: int = LIMIT
    _file: BinaryIO | None = None
    _used: int = 0
    _places: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    _archives: dict[bytes, tuple[Entry, ...]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def keep(self, entry: Entry, content: BinaryIO) -> BinaryIO | None:
        """Hold a file's content and open it; None, and nothing read, where there is no room for it."""
        with self._lock:
            if self._used + entry.size > self.limit:
                return None
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="sconify-")  # noqa: SIM115
            descriptor, start = self._file.fileno(), self._used
            self._used += entry.size
        at = start
        while data := content.read(CHUNK):
            at += os.pwrite(descriptor, data, at)
        self._places[entry.path] = (start, at - start)
        return part(descriptor, start, at - start)

    def open(self, path: bytes) -> BinaryIO | None:
        """The content of a file that is held."""
        place = self._places.get(path)
        return part(self._file.fileno(), *place) if place is not None and self._file is not None else None

    def has(self, path: bytes) -> bool:
        """Whether the content of a file is held."""
        return path in self._places

    def complete(self, root: bytes, entries: tuple[Entry, ...]) -> None:
        """The archive of `root` was read to its end, every content in it is held, and these are its entries in order."""
        self._archives[root] = entries

    def archive(self, path: bytes) -> bytes | None:
        """Which complete archive would have `path`, if the image has it."""
        while path not in self._archives:
            if path == b"/":
                return None
            path = split(path)[0]
        return path

    def entries(self, root: bytes) -> tuple[Entry, ...]:
        """The entries of a complete archive."""
        return self._archives[root]

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._places.clear()
            self._archives.clear()
            if self._file is not None:
                self._file.close()
            self._file, self._used = None, 0
