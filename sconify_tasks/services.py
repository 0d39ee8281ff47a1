"""Runtimes that need more than their shared objects: found by their binary, their record's places filled in.

The records are in `service_records`, the page for users is docs/services.md. `libraries` are protected as authenticated
regions: planted files are not seen in them. `absent` are files that would redirect the runtime to code elsewhere: they are
pinned, present or not. `environment` goes into the session where neither the image nor `--env` says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct, field

TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu")
"""Debian's names of the directories that belong to one architecture."""
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class ServiceRecord(Struct, frozen=True, kw_only=True):
    """How to recognise a service by its binary, and where its parts lie.

    Placeholders: `{bin}` the binary's directory, `{prefix}` the directory above it, `{triplet}` each of `TRIPLETS`, and
    the pattern's named groups; a place with a group that is not there is left out. `configuration` are those of the
    libraries that people write passwords into. `directories` must exist for the service to write to; they come along empty.
    `by_link` says that it looks for its parts beside the symlink it is started by as well. `title` is what --help calls it.
    """

    name: str
    title: str
    binary: re.Pattern[str]
    libraries: tuple[str, ...]
    configuration: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    by_link: bool = False


class Service(Struct, frozen=True, kw_only=True):
    """A service found in an image, its record's places filled in."""

    name: str
    libraries: tuple[bytes, ...]
    configuration: tuple[bytes, ...]
    links: tuple[bytes, ...]
    absent: tuple[bytes, ...]
    directories: tuple[bytes, ...]
    environment: Mapping[str, str]


# Read by the loader of every program (of glibc, of musl): a planted one would say which libraries to load.
LOADER_FILES = (
    *(b"/etc/ld.so.cache", b"/etc/ld.so.preload"),
    *(b"/etc/ld-musl-x86_64.path", b"/etc/ld-musl-aarch64.path"),
)


def detect(binary: str, known_as: Iterable[str] = ()) -> Service | None:
    """Return the service that `binary` (its resolved path in the image) is the runtime of, if it is known.

    `known_as` are the symlinks that lead to it: a virtual environment's Python is one.
    """
    from sconify_tasks.service_records import RECORDS

    for record in RECORDS:
        found = record.binary.match(binary)
        if found:
            named = [link for link in known_as if record.by_link and link.rpartition("/")[2].startswith(record.name)]
            groups = {name: value for name, value in found.groupdict().items() if value is not None}
            places = [_places(path) | groups for path in (binary, *named)]
            return Service(
                name=record.name,
                libraries=_fill((*record.libraries, *record.configuration), places),
                configuration=_fill(record.configuration, places),
                links=tuple(path for path in _fill(record.links, places[:1]) if path != binary.encode()),
                absent=_fill(record.absent, places),
                directories=_fill(record.directories, places),
                environment=record.environment,
            )
    return None


def _places(path: str) -> dict[str, str]:
    directory = path.rpartition("/")[0]
    return {"bin": directory, "prefix": directory.rpartition("/")[0]}


def _fill(templates: Iterable[str], places: Iterable[dict[str, str]]) -> tuple[bytes, ...]:
    alternatives = [{**place, "triplet": triplet} for place in places for triplet in TRIPLETS]
    return tuple(sorted({path.encode() for template in templates for path in _filled(template, alternatives)}))


def _filled(template: str, alternatives: Iterable[Mapping[str, str]]) -> Iterator[str]:
    names = set(_PLACEHOLDER.findall(template))
    return (template.format(**place) for place in alternatives if names <= place.keys())
