"""Where an image's files lie: a folder, or (`archive.py`) a tar of one. Names are relative, `blobs/sha256/HEX`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.image.extent import Extent
from sconify_tasks.image.manifest import HINT
from sconify_tasks.named_file import open_named

_HINT = "check the name; an OCI layout has the files oci-layout and index.json"


class Files(Protocol):
    """Named, read-only bytes. Nothing about them has been verified."""

    @property
    def label(self) -> str:
        """The place with its transport, for messages: `oci:/srv/layout`."""

    def extent(self, name: str) -> Extent:
        """Open a file; the caller closes it. UnavailableError names one that is missing."""

    def size(self, name: str) -> int | None:
        """Its length in bytes; None where it is missing."""

    def close(self) -> None:
        """Let go of descriptors. May be called twice."""


class FolderFiles:
    """The files of a folder."""

    def __init__(self, folder: Path, *, label: str) -> None:
        self._folder, self._label = folder, label

    @property
    def label(self) -> str:
        """As given."""
        return self._label

    def extent(self, name: str) -> Extent:
        """Open a file."""
        try:
            file = open_named(self._folder / name)
        except OSError as error:
            msg = f"{self._label}: {name}: {error.strerror}"
            raise UnavailableError(msg, hint=_HINT) from error
        if file is None:
            msg = f"{self._label}: {name} is not a regular file"
            raise UnavailableError(msg, hint=_HINT)
        return Extent.whole(file)

    def size(self, name: str) -> int | None:
        """Its length in bytes; None where it is missing."""
        try:
            return (self._folder / name).stat().st_size
        except OSError:
            return None

    def close(self) -> None:
        """Nothing is held."""


def read_small(files: Files, name: str, limit: int) -> bytes:
    """Read a document whole; UsageError where it is larger than `limit` bytes."""
    extent = files.extent(name)
    try:
        if extent.size > limit:
            msg = f"{files.label}: {name} is larger than {limit} bytes"
            raise UsageError(msg, hint=HINT)
        return extent.open().read(extent.size)
    finally:
        extent.close()
