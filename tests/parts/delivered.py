"""Every image in files that a test makes is validated: in this process where a sink delivers it, of a command when it has ended.

A test that delivers what is not valid, on purpose, says so with the marker `delivers_damage`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from sconify_tasks.image.sink_archive import DockerArchiveSink, OciArchiveSink
from sconify_tasks.image.sink_oci import OciSink
from sconify_tasks.image.validate import validate, violations

_SINKS: dict[type, tuple[str, str]] = {
    OciSink: ("oci", "_folder"),
    OciArchiveSink: ("oci-archive", "_file"),
    DockerArchiveSink: ("docker-archive", "_file"),
}


@contextmanager
def deliveries_looked_at() -> Iterator[list[str]]:
    """What is wrong with what sinks delivered so far, a line for each violation. Whoever reads it empties it."""
    wrong: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for sink, (transport, attribute) in _SINKS.items():
            patch.setattr(sink, "deliver", _looked_at(sink.deliver, transport, attribute, wrong))
        yield wrong


def _looked_at(deliver: Any, transport: str, attribute: str, wrong: list[str]) -> Any:
    @wraps(deliver)
    def delivered(sink: Any, built: Any, base: Any, name: str) -> Any:
        found = deliver(sink, built, base, name)
        image = f"{transport}:{getattr(sink, attribute)}" + (f":{name}" if name else "")
        wrong.extend(f"{image}: {line}" for line in violations(image))
        return found

    return delivered


def moment() -> int:
    """Now, by the clock that stamps files (ns): it may be behind the time of day."""
    with tempfile.TemporaryFile() as file:
        return os.fstat(file.fileno()).st_mtime_ns


def validate_written(folder: Path, *, since: int) -> None:
    """Validate every layout and archive below `folder` in which something was written after that moment.

    `layer-….tar` is none: build resources have the layers of an image beside its Dockerfile.
    """
    for name, folders, files in os.walk(folder):
        here = Path(name)
        if "oci-layout" in files and "index.json" in files:
            folders.clear()
            # What is delivered is renamed into its place: a blob that has a link less, or is damaged where it lies, was not.
            if any(path.stat().st_mtime_ns > since for path in (here / "index.json", *here.glob("blobs/*"))):
                for tag in _tags(here):
                    validate(here, tag)
        for archive in (here / file for file in files if file.endswith(".tar")):
            if not archive.name.startswith("layer-") and archive.is_file() and archive.stat().st_mtime_ns > since:
                _validate_archive(archive)


def _tags(layout: Path) -> set[str]:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    return {entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for entry in entries}


def _validate_archive(file: Path) -> None:
    """Of either kind: each is read as what it is."""
    import tarfile

    with tarfile.open(file) as opened:
        kind = "docker-archive" if "manifest.json" in opened.getnames() else "oci-archive"
    validate(f"{kind}:{file}")
