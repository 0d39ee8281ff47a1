"""Undo what a build did outside: the delivered image, its build resources. What the cache holds stays.

Only what a record says was made is removed, and an image only while its name still stands for that very image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sconify_tasks.build import Build
from sconify_tasks.image.references import parse_reference, split_archive, split_layout, split_transport
from sconify_tasks.options import session_file
from sconify_tasks.step import Step


def remove_outside(build: Build, step: Step, *, dry_run: bool) -> Iterator[str]:
    """Remove what a step made outside, as its last record has it; yield each thing, before it goes."""
    record = build.world.actions.latest(build.scope, step.name)
    if record is None:
        return
    if step.name == "deliver":
        yield from _image(build, str(record.facts["identity"]), dry_run=dry_run)
    elif step.name == "resources":
        layers = record.facts["layers"]
        assert isinstance(layers, list)
        yield from _files(build, [str(layer[0]) for layer in layers if isinstance(layer, list)], dry_run=dry_run)


def _image(build: Build, identity: str, *, dry_run: bool) -> Iterator[str]:
    world, to = build.world, build.options.text("to")
    transport, rest = split_transport(to)
    if not world.sinks.holds(to, identity):
        return
    yield to
    if dry_run:
        return
    if transport == "oci-archive":
        split_layout(rest, transport)[0].unlink()
    elif transport == "docker-archive":
        split_archive(rest)[0].unlink()
    elif transport == "oci" or (transport == "" and world.engine_images is None):
        from sconify_tasks.image.sink_oci import OciSink

        reference = None if transport else parse_reference(rest)
        folder, tag = split_layout(rest) if reference is None else (world.images / reference.file_name, reference.tag)
        OciSink(folder).remove(tag or "latest")
    else:
        from sconify_tasks.image.engine import engine_errors

        with engine_errors(f"removing {to}"):
            world.docker().images.remove(parse_reference(rest).familiar)


def _files(build: Build, layers: list[str], *, dry_run: bool) -> Iterator[str]:
    folder = Path(str(build.external("resources")))
    session = session_file(build.options, folder)
    for path in (session, folder / "Dockerfile", *(folder / name for name in layers if "/" not in name)):
        if path.is_file():
            yield str(path)
            if not dry_run:
                path.unlink()
    if not dry_run:
        with suppress(OSError):  # it holds something else, or was never made
            folder.rmdir()
