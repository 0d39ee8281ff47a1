"""Follow a path inside an image, component by component, as the kernel would with the image as its root.

The links come from the image: `..` and absolute targets stay inside the root, and the number of links is bounded.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind

MAX_LINKS = 40
"""Linux's own limit (path_resolution(7))."""
MAX_PATH = 4096


class FileView(Protocol):
    """What of an image is needed to find files in it; a `SourceImage` is one, and so is a tree."""

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of a normalised absolute path, without following links; None where there is nothing."""

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file of at most `limit` bytes; UsageError where it is none or larger."""

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, in any order; empty where there is none."""


class LinkView(Protocol):
    """The part of `FileView` that resolving needs."""

    def lstat(self, path: bytes) -> Entry | None:
        """As `FileView.lstat`."""


class Resolved(Struct, frozen=True, kw_only=True):
    """Where a path leads: `path` has no symlink left, `links` are the symlinks passed on the way, in order."""

    path: bytes
    entry: Entry
    links: tuple[Entry, ...]


def resolve_path(view: LinkView, path: bytes) -> Resolved:
    """Follow `path`, its last component included; UsageError where it leads nowhere."""
    found = find_path(view, path)
    if found is None:
        raise UsageError(f"{_text(path)} does not exist in the image", hint="look for it in the native image")
    return found


def find_path(view: LinkView, path: bytes) -> Resolved | None:
    """As `resolve_path`, but None where nothing is there. Loops and paths that can't be one are still UsageError."""
    if not path.startswith(b"/") or b"\0" in path or len(path) > MAX_PATH:
        raise UsageError(
            f"not an absolute path: {_text(path)}", hint="write it from the root of the image, like /usr/bin/python3"
        )
    here, entry = b"/", Entry(path=b"/", kind=Kind.DIR, mode=0o755)
    links: list[Entry] = []
    rest = _components(path)
    while rest:
        name = rest.pop()
        if entry.kind is not Kind.DIR:
            return None
        if name == b"..":
            # `here` has no links in it, so that cutting its last component is what the kernel does.
            here = here[: here.rindex(b"/")] or b"/"
            entry = Entry(path=here, kind=Kind.DIR)
            continue
        below = here.rstrip(b"/") + b"/" + name
        found = view.lstat(below) if len(below) <= MAX_PATH else None
        if found is None:
            return None
        if found.kind is not Kind.SYMLINK:
            here, entry = below, found
            continue
        links.append(found)
        if len(links) > MAX_LINKS:
            raise UsageError(f"{_text(path)} leads through more than {MAX_LINKS} symlinks", hint="there is a loop in the image")
        rest += _components(found.target)
        if found.target.startswith(b"/"):
            here, entry = b"/", Entry(path=b"/", kind=Kind.DIR, mode=0o755)
    if here != b"/":
        entry = view.lstat(here) or entry
    return Resolved(path=here, entry=entry, links=tuple(links))


def _components(path: bytes) -> list[bytes]:
    """Return the components still to walk, the next one last."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    return parts[::-1]


def _text(path: bytes) -> str:
    return path[:300].decode(errors="backslashreplace")
