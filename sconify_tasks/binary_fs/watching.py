"""Who looks at the files of a folder while they are read for its identity: with --binary-fs, they are read once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sconify_tasks.binary_fs.index import CHUNK
from sconify_tasks.binary_fs.selecting import likely
from sconify_tasks.objects import MAGIC
from sconify_tasks.options import Options

if TYPE_CHECKING:
    from sconify_tasks.image.source import ContentWatcher, SourceImage, TakeBlock


class Watched:
    """The digests of the chunks of files that `wanted` names, and which of them are no ELF files. A `ContentWatcher`."""

    def __init__(self, wanted: Callable[[bytes], bool]) -> None:
        self._wanted = wanted
        self._found: dict[bytes, list[bytes]] = {}
        self._elf: set[bytes] = set()

    def watch(self, path: bytes) -> TakeBlock | None:
        """Take the blocks of a file; each but the last is whole chunks."""
        if not self._wanted(path):
            return None
        digests = self._found[path] = []

        def take(block: memoryview) -> None:
            if not digests and block[: len(MAGIC)] == MAGIC:
                self._elf.add(path)
            digests.extend(hashlib.sha256(block[start : start + CHUNK]).digest() for start in range(0, len(block), CHUNK))

        return take

    def digests(self) -> dict[bytes, bytes]:
        """Of each file that was read, joined, by path; once the identity is known."""
        return {path: b"".join(digests) for path, digests in self._found.items()}

    def plain(self) -> set[bytes]:
        """Paths of those that begin as no ELF file does."""
        return self._found.keys() - self._elf


def watcher_of(options: Options) -> ContentWatcher:
    """Watches what will most likely be embedded; what it misses is read once more."""
    return Watched(likely(options))


def watched(native: SourceImage) -> Watched:
    """What was seen with the identity; nothing where nobody watched."""
    watcher = getattr(native, "watcher", None)
    return watcher if isinstance(watcher, Watched) else Watched(lambda _: False)


def contents(native: SourceImage, paths: set[bytes]) -> Mapping[bytes, bytes]:
    """Their content ids, where the source has them."""
    known = getattr(native, "content_id", None)
    found = ((path, known(path)) for path in paths) if known is not None else ()
    return {path: content for path, content in found if content is not None}
