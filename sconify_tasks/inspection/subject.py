"""What is looked at: a sconified ELF file, by itself or inside an image. Nothing is made in the state folder for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from msgspec import Struct

from sconify_tasks.environment import Environment
from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.references import open_source
from sconify_tasks.image.resolve import resolve_path
from sconify_tasks.image.source import SourceImage
from sconify_tasks.world import connect_engine

_CHUNK = 1 << 20


class Subject(Struct, frozen=True, kw_only=True):
    """`file` is the sconified ELF on this machine; of an image, a copy, and `place` is its path inside the image."""

    name: str
    file: Path
    image: SourceImage | None = None
    place: str = ""


@contextmanager
def open_subject(text: str, *, environment: Environment, platform: str) -> Iterator[Subject]:
    """Open a file that exists under this name, else the image of this name (docker:, oci:, dir:, or a bare name)."""
    if Path(text).is_file():
        yield Subject(name=text, file=Path(text))
        return
    if text.startswith(("/", "./", "../")):
        raise UsageError(
            f"there is no file {text}", hint="name a sconified file, or an image: docker:NAME, oci:DIR[:TAG], dir:ROOTFS"
        )
    image = open_source(
        text,
        docker=cache(lambda: connect_engine(environment)),
        default_oci_store=environment.state / "images",
        platform=platform,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="sconify-") as folder:
            place = _entrypoint(image)
            file = Path(folder) / "binary"
            with image.walk([place]) as stream, file.open("wb") as out:
                _, content = next(stream)
                assert content is not None
                shutil.copyfileobj(content, out, _CHUNK)
            yield Subject(name=image.name, file=file, image=image, place=place.decode(errors="backslashreplace"))
    finally:
        image.close()


def _entrypoint(image: SourceImage) -> bytes:
    """Where the program that the image starts lies. The same for one that was not sconified: its file says so."""
    words = (*image.config.entrypoint, *image.config.cmd)
    if not words or not words[0].startswith("/"):
        raise UsageError(
            f"{image.name} does not start a program by its path", hint="is it the encrypted image, or the native one?"
        )
    found = resolve_path(image, words[0].encode(errors="surrogateescape"))
    if found.entry.kind is not Kind.FILE:
        raise UsageError(f"{words[0]} is no file in {image.name}", hint="is it the encrypted image?")
    return found.path
