"""`scratch`: the empty image, as a base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from sconify_tasks.errors import UsageError
from sconify_tasks.image.config import identity_of
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import check_path, shown
from sconify_tasks.image.source import not_there


class ScratchSource:
    """An image without layers, environment or files."""

    def __init__(self, *, platform: str = "linux/amd64") -> None:
        system, _, architecture = platform.partition("/")
        self._config = ImageConfig(os=system, architecture=architecture)

    @property
    def name(self) -> str:
        """`scratch`."""
        return "scratch"

    @property
    def identity(self) -> str:
        """SHA-256 of the empty config without layers."""
        return identity_of(self._config, ())

    @property
    def config(self) -> ImageConfig:
        """Empty but for the platform."""
        return self._config

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """None."""
        return ()

    def lstat(self, path: bytes) -> Entry | None:
        """Only the root is there."""
        check_path(path)
        return Entry(path=path, kind=Kind.DIR, mode=0o755) if path == b"/" else None

    def listdir(self, path: bytes) -> list[bytes]:
        """Nothing."""
        check_path(path)
        return []

    @contextmanager
    def walk(self, roots: Iterable[bytes]) -> Iterator[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Only the root is there."""
        wanted = list(roots)
        for root in wanted:
            if root != b"/":
                raise not_there(root, "scratch")
        yield iter([(Entry(path=b"/", kind=Kind.DIR, mode=0o755), None)] if wanted else [])

    def read(self, path: bytes, *, limit: int) -> bytes:
        """No file is there."""
        msg = f"{shown(path)} is not a file in scratch (at most {limit} bytes)"
        raise UsageError(msg, hint="check the path")

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """No layer."""
        yield ()

    def close(self) -> None:
        """Nothing is held."""
