"""What is noted, as bytes and back: a line of JSON, then the paths of all groups one after the other, each ended by a NUL.

A path takes no part in the JSON, whose strings cost ten times as much to read. It is read after it was found authentic:
shapes need no second look.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from sconify_tasks.settled.record import Origin, SettledImage
from sconify_tasks.settled.signature import Signature
from sconify_tasks.settled.watch import Watch

_VERSION: Final = 3


@dataclass(slots=True, kw_only=True)
class Memory:
    """What was noted. `program` stands for the program itself and for surroundings that are the same for all images.

    `groups` are files that several images watch, by name; `shared` the files that hold something of several images (an index,
    the CAS's database), with the stat under which all noted of them was right.
    """

    program: str
    origin: Origin | None = None
    shared: dict[str, Signature | None] = field(default_factory=dict)
    groups: dict[str, Watch] = field(default_factory=dict)
    images: dict[str, SettledImage] = field(default_factory=dict)


def to_bytes(memory: Memory) -> bytes:
    """The whole of it."""
    paths: list[bytes] = []

    def watch(group: Watch) -> list[Any]:
        counts = []
        for part in (group.files, group.links, group.lengths, group.absent):
            paths.extend(part)
            counts.append(len(part))
        return [*counts, group.digest]

    def origin(value: Origin) -> list[Any]:
        rest = [value.globs, value.variable_names, value.variables, value.names, value.chosen, value.upstream]
        return [watch(value.watch), *rest]

    def image(value: SettledImage) -> list[Any]:
        own = [value.name, value.options, value.session, value.to, value.warnings, value.demands_production, value.noted]
        return [*own, watch(value.watch), value.shared, value.engine, value.tags, value.cas]

    document = [
        _VERSION,
        memory.program,
        None if memory.origin is None else origin(memory.origin),
        memory.shared,
        [[name, watch(group)] for name, group in memory.groups.items()],
        [image(each) for each in memory.images.values()],
    ]
    head = json.dumps(document, separators=(",", ":")).encode("ascii")
    return b"%b\n%b" % (head, b"".join(b"%b\0" % path for path in paths))


def of_bytes(content: bytes, program: str) -> Memory | None:
    """Return what `to_bytes` was given; None where another version or program wrote it."""
    head, _, tail = content.partition(b"\n")
    version, known, *rest = json.loads(head)
    if (version, known) != (_VERSION, program):
        return None
    origin, shared, groups, images = rest
    paths, at = tail.split(b"\0"), 0

    def part(count: int) -> tuple[bytes, ...]:
        nonlocal at
        at += count
        return tuple(paths[at - count : at])

    def watch(values: list[Any]) -> Watch:
        files, links, lengths, absent, digest = values
        return Watch(files=part(files), links=part(links), lengths=part(lengths), absent=part(absent), digest=digest)

    def image(values: list[Any]) -> SettledImage:
        name, options, session, to, warnings, demands, noted, group, others, engine, tags, cas = values
        return SettledImage(
            name=name,
            options=options,
            session=session,
            to=to,
            warnings=tuple(warnings),
            demands_production=demands,
            noted=noted,
            watch=watch(group),
            shared=others,
            engine=engine,
            tags=tuple((index, tag, digest) for index, tag, digest in tags),
            cas=cas,
        )

    def origin_of(values: list[Any]) -> Origin:
        group, globs, variable_names, variables, names, chosen, upstream = values
        return Origin(
            watch=watch(group),
            globs=tuple((folder, pattern, digest) for folder, pattern, digest in globs),
            variable_names=tuple(variable_names),
            variables=variables,
            names=tuple(names),
            chosen=tuple(chosen),
            upstream={name: tuple(needs) for name, needs in upstream.items()},
        )

    # In the order in which the paths were written.
    return Memory(
        program=program,
        origin=None if origin is None else origin_of(origin),
        shared=shared,
        groups={name: watch(values) for name, values in groups},
        images={values[0]: image(values) for values in images},
    )
