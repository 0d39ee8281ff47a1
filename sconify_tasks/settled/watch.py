"""A group of files that are watched together: their paths, and one digest of what their stats say.

What is asked of a group is only whether all of it is as it was, so no stat is kept: a thousand images are some ten thousand
paths and a digest for each image.
"""

from __future__ import annotations

import hashlib
import marshal
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import Struct

from sconify_cache.ticks import settled_at
from sconify_tasks.settled.signature import Signature, settles_at, signature

if TYPE_CHECKING:
    from sconify_tasks.image.source import Fingerprint

_DIGEST_BYTES = 16


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
        # Entered for every file of a project on every run: no call but the stat, `signature` is written out.
        stat, lstat = os.stat, os.lstat
        seen: list[int] = []
        try:
            for path in self.files:
                found = stat(path)
                seen += (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
            for path in self.links:
                found = lstat(path)
                seen += (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
            for path in self.lengths:
                seen.append(stat(path).st_size)
        except OSError:
            return None
        return None if any(map(os.path.exists, self.absent)) else _digest(seen)

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
        groups = [_once(group) for group in (self.files, self.links, self.lengths)]
        seen = [value for group in groups for path in group for value in self._seen[path]]
        files, links, lengths = groups
        return Watch(files=files, links=links, lengths=lengths, absent=_once(self.absent), digest=_digest(seen))

    def _note(self, group: list[bytes], path: bytes, found: os.stat_result, before: int) -> None:
        if settles_at(found) > before:
            raise TooNewError
        group.append(path)
        self._seen[path] = signature(found)


class TooNewError(Exception):
    """A file's next change could leave the stat that it has now."""


def _once(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(paths))


def _digest(seen: list[int]) -> str:
    # marshal's second version has no references: equal lists give equal bytes. Nothing is ever loaded from them.
    return hashlib.blake2b(marshal.dumps(seen, 2), digest_size=_DIGEST_BYTES).hexdigest()
