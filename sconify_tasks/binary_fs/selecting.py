"""What of the native image is embedded: what the user names, and by default every shared object and the service's libraries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.names import FSPF_DIRECTORY
from sconify_tasks.fspf.regions import Protection, Region, Regions, prefixes
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import outermost, shown
from sconify_tasks.image.source import SourceImage
from sconify_tasks.options import Options
from sconify_tasks.protection import NEVER_PROTECTED
from sconify_tasks.selection import resolve_option, service_libraries
from sconify_tasks.services import LOADER_FILES, Service

_SHARED_OBJECT = re.compile(rb"\.so(\.[0-9][^/]*)?\Z")
_EMBEDDABLE = (Kind.FILE, Kind.DIR, Kind.SYMLINK)


class Chosen(Struct, frozen=True, kw_only=True):
    """Resolved paths: embedded with all below them, copied as they are, seen as the container has them.

    `objects` says that shared objects are embedded wherever they lie. `links` are symlinks (path to target) on the way.
    """

    embedded: frozenset[bytes]
    plain: frozenset[bytes]
    host: frozenset[bytes]
    objects: bool
    links: Mapping[bytes, bytes]

    def regions(self) -> Regions:
        """Everything is the embedded file system's, except host paths and what the kernel and the engine make."""
        outside = {*self.host, *NEVER_PROTECTED, FSPF_DIRECTORY}
        return Regions.of(
            [
                Region(path=b"/", protection=Protection.AUTHENTICATED),
                *(Region(path=path, protection=Protection.NONE) for path in outside),
            ]
        )

    def roots(self) -> list[bytes]:
        """Where to walk: once over the whole image when shared objects are looked for."""
        return [b"/"] if self.objects else outermost([*self.embedded, *self.plain])

    def embeds(self, path: bytes) -> bool:
        """Whether a path of the image goes into the binary, as far as its region is the embedded file system's."""
        named = any(prefix in self.embedded for prefix in prefixes(path))
        return named or (self.objects and bool(_SHARED_OBJECT.search(path)))

    def copies(self, path: bytes) -> bool:
        """Whether a path of the image is copied into a layer as it is."""
        return any(prefix in self.plain for prefix in prefixes(path))


def choose(
    native: SourceImage, options: Mapping[str, Any], *, service: Service | None, scripts: Iterable[bytes] = ()
) -> Chosen:
    """Resolve the options; UsageError for a path that is missing, or named for two things."""
    links: dict[bytes, bytes] = {}
    defaults = not options["disable-binary-fs-defaults"]
    named = resolve_option(native, options, "fs-dir", {Kind.DIR}, links)
    named |= resolve_option(native, options, "fs-file", {Kind.FILE}, links)
    plain = resolve_option(native, options, "plain", {Kind.DIR}, links)
    plain |= resolve_option(native, options, "plain-file", {Kind.FILE}, links)
    host = frozenset(path.encode() for path in options["host-path"])
    for path in sorted(named & host):
        raise UsageError(
            f"{shown(path)} is named by --host-path and by --fs-dir or --fs-file",
            hint="a path is either embedded or the container's own: drop one of them",
        )
    for path in sorted(named):
        system = next((prefix for prefix in prefixes(path) if prefix in NEVER_PROTECTED), None)
        if system is not None:
            raise UsageError(f"{shown(path)} can't be embedded: {shown(system)} is the kernel's or the engine's own")
    if defaults:
        links |= _links_of_root(native)
        if not options["disable-copy-service-libraries"]:
            libraries, on_the_way = service_libraries(native, service)
            named |= libraries
            links |= on_the_way
    named |= set(scripts)
    pins = (*LOADER_FILES, *(service.absent if service else ()))
    named |= {path for path in pins if (found := native.lstat(path)) is not None and found.kind is Kind.FILE}
    return Chosen(embedded=frozenset(named), plain=frozenset(plain), host=host, objects=defaults, links=links)


def likely(options: Options) -> Callable[[bytes], bool]:
    """Whether a path is embedded as far as its name tells, before any is resolved."""
    named = {f"/{path.strip('/')}".encode() for option in ("fs-dir", "fs-file") for path in options.texts(option)}
    objects = not options.flag("disable-binary-fs-defaults")

    def embeds(path: bytes) -> bool:
        return (objects and bool(_SHARED_OBJECT.search(path))) or any(prefix in named for prefix in prefixes(path))

    return embeds


def embeddable(entry: Entry) -> bool:
    """Whether this kind of file can be embedded: devices and FIFOs can't."""
    return entry.kind in _EMBEDDABLE


def _links_of_root(native: SourceImage) -> dict[bytes, bytes]:
    """/bin, /lib and the like, where they are symlinks: programs know their libraries by them."""
    found = (native.lstat(b"/" + name) for name in native.listdir(b"/"))
    return {entry.path: entry.target for entry in found if entry is not None and entry.kind is Kind.SYMLINK}
