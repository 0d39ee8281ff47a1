"""Puts our entries over a base image, through the merged view of its layers. Pure: it needs the base's `lstat` only.

A layer is laid over others name by name, so a careless one destroys the base: a directory entry `lib/` over the base's
symlink `/lib -> usr/lib` hides all its libraries. Hence every path is resolved in the base first, what exists is not
made again, and a directory never replaces anything else nor the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from msgspec.structs import replace

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import names
from sconify_tasks.image.paths import check_path, join, shown, split
from sconify_tasks.image.tar_write import order_key

Payload = TypeVar("Payload")
Lookup = Callable[[bytes], Entry | None]
_LINKS = 40  # the kernel's MAXSYMLINKS
_HINT = "choose another --base, or another place for the files"


def nothing(path: bytes) -> Entry | None:
    """Be the `lstat` of an empty base."""
    del path
    return None


def place(
    entries: Iterable[tuple[Entry, Payload]], *, base: Lookup, native: Lookup = nothing, missing: Payload
) -> list[tuple[Entry, Payload]]:
    """Return what a layer over `base` must hold, in the layer's order, with every path where the base leads it.

    `native` gives the metadata of parents that must be made (else 0755, root); `missing` is their payload. UsageError
    where a directory and something else would take each other's place, or two different entries the same one.
    """
    placing = _Placing(base)
    placed: dict[bytes, tuple[Entry, Payload]] = {}
    for entry, payload in sorted(entries, key=lambda item: order_key(item[0])):
        check_path(entry.path)
        at = placing.locate(entry.path, directory=entry.kind is Kind.DIR)
        linked = placing.locate(entry.hardlink, directory=False) if entry.hardlink else b""
        moved = replace(entry, path=at, hardlink=linked)
        _check_twice(placed.get(at), (moved, payload), entry.path)
        if placing.needs(moved, asked=entry.path):
            for parent in _missing_parents(at, placing, native):
                placing.made[parent.path] = parent
                placed[parent.path] = (parent, missing)
            placing.made[at] = moved
            placed[at] = (moved, payload)
    return sorted(placed.values(), key=lambda item: order_key(item[0]))


class _Placing:
    """The base with what was placed so far on top."""

    def __init__(self, base: Lookup) -> None:
        self._base = base
        self._known: dict[bytes, Entry | None] = {}
        self.made: dict[bytes, Entry] = {}

    def lookup(self, path: bytes) -> Entry | None:
        """Find what stands at `path`, ours before the base's; no symlink is followed."""
        return self.made.get(path) or self.below(path)

    def below(self, path: bytes) -> Entry | None:
        """Find what the base has at `path`."""
        if path not in self._known and path == b"/":
            self._known[path] = self._base(path) or Entry(path=path, kind=Kind.DIR, mode=0o755)
        if path not in self._known:
            parent = self.below(split(path)[0])
            inside = parent is not None and parent.kind is Kind.DIR
            self._known[path] = self._base(path) if inside else None
        return self._known[path]

    def locate(self, path: bytes, *, directory: bool) -> bytes:
        """Follow the symlinks of the parents, and of `path` itself if it is to be a directory; stay on what is missing."""
        current, pending, links = b"/", names(path)[::-1], 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                current = split(current)[0]
                continue
            at = join(current, name)
            found = self.lookup(at)
            last = not pending
            if found is not None and found.kind is Kind.SYMLINK and (directory or not last):
                links += 1
                if links > _LINKS:
                    raise _collision(path, "runs in a circle of symlinks")
                pending += found.target.split(b"/")[::-1]
                current = b"/" if found.target.startswith(b"/") else current
            elif found is not None and found.kind is not Kind.DIR and not last:
                raise _collision(path, f"lies under {shown(at)}, which is no directory")
            else:
                current = at
        return current

    def needs(self, entry: Entry, *, asked: bytes) -> bool:
        """Whether the entry must be written. UsageError where it may not stand in the place of what is there."""
        found = self.lookup(entry.path)
        if found is None:
            return True
        if entry.kind is Kind.DIR or found.kind is Kind.DIR:
            if entry.kind is not found.kind and not self._same_directory(entry, found):
                raise _collision(asked, f"would replace {_kind(found)} of the base by {_kind(entry)}")
            return entry.kind is found.kind and _differs(entry, found)
        if entry.kind is Kind.SYMLINK and found.kind is Kind.SYMLINK:
            return self._relink(entry, found, asked)
        return True

    def _relink(self, entry: Entry, found: Entry, asked: bytes) -> bool:
        if entry.target == found.target:
            return False
        before, after = self._aim(found), self._aim(entry)
        if before == after:
            return False
        if before is not None and (aimed := self.lookup(before)) is not None and aimed.kind is Kind.DIR:
            raise _collision(asked, f"is a symlink to the directory {shown(before)} in the base")
        return True

    def _aim(self, link: Entry) -> bytes | None:
        """Where a symlink leads to in the end; None for a circle or a way through what is no directory."""
        parent = split(link.path)[0]
        target = link.target if link.target.startswith(b"/") else join(parent, link.target)
        try:
            return self.locate(b"/" + target.strip(b"/"), directory=True) if target.strip(b"/") else b"/"
        except UsageError:
            return None

    def _same_directory(self, entry: Entry, found: Entry) -> bool:
        """Whether our symlink only leads back to the directory that the base has in its place."""
        return entry.kind is Kind.SYMLINK and found.kind is Kind.DIR and self._aim(entry) == entry.path


def _missing_parents(path: bytes, placing: _Placing, native: Lookup) -> Iterator[Entry]:
    parent = split(path)[0]
    while placing.lookup(parent) is None:
        found = native(parent)
        like = found if found is not None and found.kind is Kind.DIR else Entry(path=parent, kind=Kind.DIR, mode=0o755)
        yield replace(like, path=parent)
        parent = split(parent)[0]


def _check_twice(before: tuple[Entry, object] | None, now: tuple[Entry, object], asked: bytes) -> None:
    if before is not None and before != now and not (before[0].kind is now[0].kind is Kind.DIR):
        raise _collision(asked, f"and another file would both be {shown(now[0].path)} over this base")


def _differs(entry: Entry, found: Entry) -> bool:
    return (entry.mode, entry.uid, entry.gid, entry.xattrs) != (found.mode, found.uid, found.gid, found.xattrs)


def _kind(entry: Entry) -> str:
    return "a directory" if entry.kind is Kind.DIR else "a symlink" if entry.kind is Kind.SYMLINK else "a file"


def _collision(path: bytes, what: str) -> UsageError:
    return UsageError(f"{shown(path)} {what}", hint=_HINT)
