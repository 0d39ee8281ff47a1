"""A group of files that are watched together: their paths, and one digest of what their stats say.

It is made of two, of the first half of the links and of the second: two processes can look at them.

What is asked of a group is only whether all of it is as it was, so no stat is kept: a thousand images are some ten thousand
paths and a digest for each image.
"""

from __future__ import annotations

import hashlib
import marshal
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from sconify_cache.ticks import settled_at
from sconify_tasks.settled.beside import beside
from sconify_tasks.settled.signature import Signature, settles_at, signature

if TYPE_CHECKING:
    from sconify_tasks.image.source import Fingerprint

_DIGEST_BYTES = 16
_MANY = 8192
"""So many links are worth a second process."""


class Watch(Struct, frozen=True, kw_only=True):
    """Paths (absolute), by what counts of them, and the digest.

    Of `files` everything counts, also of what a link leads to; of `links` the entry itself; of `lengths` the size alone,
    because their inodes are shared with the store, where a link more or less changes the change time. `absent` are not there.
    """

    files: tuple[bytes, ...] = ()
    links: tuple[bytes, ...] = ()
    lengths: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()
    digest: str

    def now(self) -> str | None:
        """The digest of what is there now; None where something is missing, or there that should not be."""
        middle = len(self.links) // 2
        look_later = partial(_look, (), self.links[middle:], self.lengths)
        later = beside(look_later) if len(self.links) >= _MANY else look_later
        first, second = _look(self.files, self.links[:middle], ()), later()
        if first is None or second is None or any(map(os.path.exists, self.absent)):
            return None
        return _joined((first, second))

    def holds(self) -> bool:
        """Whether all is as it was."""
        return self.now() == self.digest


@dataclass(slots=True, kw_only=True)
class Watching:
    """A group in the making. OSError where a file can't be looked at, TooNewError where its stat can't be trusted yet."""

    files: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    lengths: list[bytes] = field(default_factory=list)
    absent: list[bytes] = field(default_factory=list)
    _seen: dict[bytes, Signature] = field(default_factory=dict)

    def file(self, path: str | os.PathLike[str], *, before: int) -> None:
        """A file that was last changed before that time (ns)."""
        self._note(self.files, os.fsencode(path), os.stat(path), before)  # noqa: PTH116 - a Path costs more than the stat

    def link(self, path: str, *, before: int) -> None:
        """A folder's entry, of any kind."""
        self._note(self.links, os.fsencode(path), os.lstat(path), before)

    def length(self, path: str | os.PathLike[str]) -> None:
        """A file of which only the length counts."""
        name = os.fsencode(path)
        self.lengths.append(name)
        self._seen[name] = [os.stat(path).st_size]  # noqa: PTH116

    def missing(self, path: str | os.PathLike[str]) -> None:
        """A file that must not be there."""
        self.absent.append(os.fsencode(path))

    def tree(self, folder: str, seen: Mapping[bytes, Fingerprint], *, before: int) -> None:
        """A folder, and everything below it as it was `seen` (`SeenSource`); no link is followed but `folder` itself.

        Entries are not listed again later: one that comes, goes or is renamed changes its folder's times.
        """
        self.file(folder, before=before)
        root = os.fsencode(folder)
        for path, (device, inode, _, size, modified, changed) in seen.items():
            if path != b"/":
                if settled_at(modified, changed) > before:
                    raise TooNewError
                self.links.append(root + path)
                self._seen[root + path] = [size, modified, changed, inode, device]

    def done(self) -> Watch:
        """The group, with the digest of what was seen."""
        files, links, lengths = (_once(group) for group in (self.files, self.links, self.lengths))
        middle, seen = len(links) // 2, self._seen
        halves = [
            _digest([value for group in groups for path in group for value in seen[path]])
            for groups in ((files, links[:middle]), (links[middle:], lengths))
        ]
        return Watch(files=files, links=links, lengths=lengths, absent=_once(self.absent), digest=_joined(halves))

    def _note(self, group: list[bytes], path: bytes, found: os.stat_result, before: int) -> None:
        if settles_at(found) > before:
            raise TooNewError
        group.append(path)
        self._seen[path] = signature(found)


class TooNewError(Exception):
    """A file's next change could leave the stat that it has now."""


def _once(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(paths))


def _look(files: Iterable[bytes], links: Iterable[bytes], lengths: Iterable[bytes]) -> bytes | None:
    """The digest of what their stats say now; None where something is missing."""
    # Entered for every file of a project on every run: no call but the stat, `signature` is written out.
    stat, lstat = os.stat, os.lstat
    seen: list[int] = []
    try:
        for path in files:
            found = stat(path)
            seen += (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
        for path in links:
            found = lstat(path)
            seen += (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
        for path in lengths:
            seen.append(stat(path).st_size)
    except OSError:
        return None
    return _digest(seen)


def _digest(seen: list[int]) -> bytes:
    # marshal's second version has no references: equal lists give equal bytes. Nothing is ever loaded from them.
    return hashlib.blake2b(marshal.dumps(seen, 2), digest_size=_DIGEST_BYTES).digest()


def _joined(halves: Iterable[bytes]) -> str:
    return hashlib.blake2b(b"".join(halves), digest_size=_DIGEST_BYTES).hexdigest()
