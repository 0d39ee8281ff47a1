"""What the user selects of the native image, with the symlinks of the image resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.regions import Regions, prefixes
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.paths import shown
from sconify_tasks.image.resolve import Resolved, find_path, resolve_path
from sconify_tasks.image.source import SourceImage
from sconify_tasks.protection import region_table
from sconify_tasks.services import Service, detect
from sconify_tasks.step import Context


class Selection(Struct, frozen=True, kw_only=True):
    """Resolved paths by class, and the symlinks (path to target) that were passed on the way to them."""

    encrypted: frozenset[bytes]
    plain: frozenset[bytes]
    host: frozenset[bytes]
    links: Mapping[bytes, bytes]

    def regions(self, authenticated: Iterable[bytes] = ()) -> Regions:
        """The regions that follow; `authenticated` is what the tool protects by itself."""
        return region_table(encrypted=self.encrypted, plain=self.plain, host=self.host, authenticated=authenticated)


def select(native: SourceImage, options: Mapping[str, Any]) -> Selection:
    """Resolve --dir, --plain, --plain-file, --host-path. UsageError names a path that is not there, or not what is wanted."""
    links: dict[bytes, bytes] = {}
    plain = resolve_option(native, options, "plain", {Kind.DIR}, links)
    return Selection(
        encrypted=frozenset(resolve_option(native, options, "dir", {Kind.DIR}, links)),
        plain=frozenset(plain | resolve_option(native, options, "plain-file", {Kind.FILE}, links)),
        host=frozenset(path.encode() for path in options["host-path"]),
        links=links,
    )


def ancestors(native: SourceImage, paths: Iterable[bytes]) -> list[ManifestEntry]:
    """The directories that lead to these paths, as they are in the native image."""
    wanted = {parent for path in paths for parent in prefixes(path) if parent not in (path, b"/")}
    found = (native.lstat(path) for path in sorted(wanted))
    return [ManifestEntry(meta=entry) for entry in found if entry is not None and entry.kind is Kind.DIR]


def service_libraries(native: SourceImage, service: Service | None) -> tuple[set[bytes], dict[bytes, bytes]]:
    """Where a service's libraries (directories and files) lie in this image, and the symlinks that lead there."""
    paths: set[bytes] = set()
    links: dict[bytes, bytes] = {}
    for path in service.libraries if service else ():
        found = find_path(native, path)
        if found is not None and found.entry.kind in (Kind.DIR, Kind.FILE):
            paths.add(found.path)
            links.update({link.path: link.target for link in found.links})
    return paths, links


def service_of(context: Context) -> Service | None:
    """The service that the binary of this image is the runtime of, by its path and by the links that lead to it."""
    return detect(context.text("binary"), [link for link, _ in context.pairs("binary_links")])


def scripts_of(context: Context) -> set[bytes]:
    """The scripts that the binary is started with."""
    scripts = context.fact("scripts")
    assert isinstance(scripts, (list, tuple))
    return {str(path).encode() for path in scripts}


_CALLED = {
    Kind.FILE: "regular file",
    Kind.DIR: "directory",
    Kind.SYMLINK: "symlink",
    Kind.CHAR: "character device",
    Kind.BLOCK: "block device",
    Kind.FIFO: "FIFO",
}


def resolve_option(
    native: SourceImage, options: Mapping[str, Any], option: str, kinds: set[Kind], links: dict[bytes, bytes]
) -> set[bytes]:
    """Resolve the paths of one option; `links` takes the symlinks on the way. UsageError names what is not there."""
    found = set()
    for path in options[option]:
        try:
            resolved = resolve_path(native, path.encode())
        except UsageError as error:
            raise UsageError(f"--{option}={path}: {error.message}", hint=f"name a path that exists in {native.name}") from None
        if resolved.entry.kind not in kinds:
            wanted = "directory" if Kind.DIR in kinds else "regular file"
            raise UsageError(
                f"--{option}={path} is no {wanted} in {native.name}",
                hint=f"{shown(resolved.path)} is a {_CALLED[resolved.entry.kind]}",
            )
        _check_names(option, path, resolved)
        links.update({link.path: link.target for link in resolved.links})
        found.add(resolved.path)
    return found


def _check_names(option: str, path: str, resolved: Resolved) -> None:
    """What a path resolves to is recorded, and records are text."""
    names = (resolved.path, *(name for link in resolved.links for name in (link.path, link.target)))
    for name in names:
        try:
            name.decode()
        except UnicodeDecodeError:
            message = f"--{option}={path} leads to {shown(name)}, which is not UTF-8"
            raise UsageError(message, hint="rename it in the native image, or name the directory above it") from None
