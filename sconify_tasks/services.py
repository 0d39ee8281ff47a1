"""What is known of runtimes that need more than their shared objects: one record a service.

A record names places, it runs nothing. `libraries` are protected as authenticated regions: planted files are not seen in
them. `absent` are files that would redirect the runtime to code elsewhere: they are pinned, present or not. `environment`
goes into the session where neither the image nor `--env` says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """How to recognise a service by its binary, and where its parts lie.

    Placeholders: `{bin}` the binary's directory, `{prefix}` the directory above it, and the pattern's named groups.
    """

    name: str
    binary: re.Pattern[str]
    libraries: tuple[str, ...]
    links: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service found in an image, its record's places filled in."""

    name: str
    libraries: tuple[bytes, ...]
    links: tuple[bytes, ...]
    absent: tuple[bytes, ...]
    environment: Mapping[str, str]


RECORDS = (
    ServiceRecord(
        name="python",
        binary=re.compile(r"/(?:[^/]+/)*python(?P<major>3)\.(?P<minor>[0-9]{1,2})\Z"),
        libraries=(
            "{prefix}/lib/python{major}.{minor}",
            "/usr/lib/python{major}.{minor}",
            "/usr/lib/python{major}",
            "/usr/local/lib/python{major}.{minor}",
            "/etc/python{major}.{minor}",  # where Debian's sitecustomize.py leads
        ),
        links=("{bin}/python{major}",),
        absent=(
            "{bin}/pyvenv.cfg",
            "{prefix}/pyvenv.cfg",
            "{bin}/pybuilddir.txt",
            "{bin}/python{major}.{minor}._pth",
            "{prefix}/lib/python{major}{minor}.zip",
        ),
        # The user's own packages lie where /etc/passwd says, which is nobody's to vouch for.
        environment={"PYTHONNOUSERSITE": "1"},
    ),
)

# Read by the loader of every program: a planted one would name libraries to load before all others.
LOADER_FILES = (b"/etc/ld.so.cache", b"/etc/ld.so.preload")


def detect(binary: str) -> Service | None:
    """Return the service that `binary` (its resolved path in the image) is the runtime of, if it is known."""
    for record in RECORDS:
        found = record.binary.match(binary)
        if found:
            directory = binary.rpartition("/")[0] or "/"
            places = {"bin": directory.rstrip("/"), "prefix": directory.rpartition("/")[0], **found.groupdict()}
            return Service(
                name=record.name,
                libraries=_fill(record.libraries, places),
                links=_fill(record.links, places),
                absent=_fill(record.absent, places),
                environment=record.environment,
            )
    return None


def _fill(templates: tuple[str, ...], places: dict[str, str]) -> tuple[bytes, ...]:
    return tuple(sorted({template.format(**places).encode() for template in templates}))
