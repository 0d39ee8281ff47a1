"""Regions: which class of protection a path has. The longest prefix, by whole components, decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum

from msgspec import Struct

from sconify_tasks.fspf.errors import MalformedError

MAX_PATH = 4095
"""Linux's PATH_MAX without the zero at its end; of link targets too."""


class Protection(IntEnum):
    """Class of a region and of an entry; the numbers are those of the manifest."""

    NONE = 0
    AUTHENTICATED = 1
    ENCRYPTED = 2


class Region(Struct, frozen=True, kw_only=True):
    """Everything from `path` downwards, as far as no longer region takes it over."""

    path: bytes
    protection: Protection


class Regions(Struct, frozen=True, kw_only=True):
    """A checked set of regions: sorted, no path twice, `/` among them."""

    regions: tuple[Region, ...]
    by_path: Mapping[bytes, Protection]

    @classmethod
    def of(cls, regions: Iterable[Region]) -> Regions:
        """Sort and check; MalformedError for a bad path, a path given twice, or no region for `/`."""
        ordered = tuple(sorted(regions, key=lambda region: region.path))
        by_path = {region.path: region.protection for region in ordered}
        for region in ordered:
            check_path(region.path)
        if len(by_path) != len(ordered):
            raise MalformedError("duplicate", "two regions have the same path")
        if b"/" not in by_path:
            raise MalformedError("root-region", "there is no region for /")
        return cls(regions=ordered, by_path=by_path)

    def protection(self, path: bytes) -> Protection:
        """Return the class of `path`, an absolute normalised path."""
        regions = self.by_path
        found = regions.get(path)
        while found is None:
            # A checked set has a region for /, where this ends at the latest.
            path = path[: path.rindex(b"/")] or b"/"
            found = regions.get(path)
        return found


def prefixes(path: bytes) -> Iterable[bytes]:
    """`/a/b` -> `/a/b`, `/a`, `/`."""
    while path != b"/":
        yield path
        path = path[: path.rindex(b"/")] or b"/"
    yield b"/"


def check_path(path: bytes) -> None:
    """Raise MalformedError unless the path is absolute and normalised (docs/formats.md, conventions)."""
    if path == b"/":
        return
    # Searches instead of a loop over components: this runs for every entry of every tree.
    closed = path + b"/"
    bad = b"//" in closed or b"/./" in closed or b"/../" in closed or b"\0" in path
    if bad or not path.startswith(b"/") or len(path) > MAX_PATH:
        raise MalformedError("path", f"not a normalised absolute path: {path[:200]!r}")
