"""An image whose layers lie in files here, as a `SourceImage`. How the layers are opened is the transport's business."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import BinaryIO

from sconify_tasks.errors import UsageError
from sconify_tasks.image.config import identity_of, parse_diff_ids
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.extent import Extent
from sconify_tasks.image.index import LayerIndex, read_layer
from sconify_tasks.image.manifest import mapping
from sconify_tasks.image.merge import Found, MergedView
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import check_path
from sconify_tasks.image.source import readable


class LayeredSource:
    """Layers are unpacked and indexed when something inside is asked for."""

    def __init__(self, *, name: str, config: ImageConfig, platform: str) -> None:
        self._name, self._config = name, config
        self._diff_ids = parse_diff_ids(mapping(config.raw.get("rootfs")).get("diff_ids"))
        actual = f"{config.os}/{config.architecture}"
        if not f"{platform}/".startswith(f"{actual}/"):
            msg = f"{name} is an image for {actual}, not for {platform}"
            raise UsageError(msg, hint="choose another image")
        self._lock = Lock()
        self._layers: list[Extent] = []
        self._view: MergedView | None = None

    def open_layer(self, number: int) -> Extent:
        """Open one layer, verified and uncompressed; the caller closes it."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """As given, with the transport."""
        return self._name

    @property
    def identity(self) -> str:
        """SHA-256 over layers and config."""
        return identity_of(self._config, self._diff_ids)

    @property
    def config(self) -> ImageConfig:
        """The parsed image config."""
        return self._config

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """Digests of the uncompressed layers, the lowest first."""
        return self._diff_ids

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of one path."""
        check_path(path)
        found = self._merged().lstat(path)
        return found.entry if found else None

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        check_path(path)
        return self._merged().listdir(path)

    @contextmanager
    def walk(self, roots: Iterable[bytes]) -> Iterator[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, parents first, siblings sorted."""
        wanted = list(roots)
        for root in wanted:
            check_path(root)
        yield self._contents(wanted)

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file."""
        check_path(path)
        found = self._merged().lstat(path)
        readable(found.entry if found else None, path, limit=limit, name=self._name)
        assert found is not None
        return self._content(found).read()

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """Give the layers as uncompressed tars: the blob itself, or a copy that vanishes with this call."""
        self._merged()
        with ExitStack() as copies:
            layers = []
            for diff_id, extent in zip(self._diff_ids, self._layers, strict=True):
                alone = extent.alone()
                if alone is not extent:
                    copies.callback(alone.close)
                layers.append(alone.layer(diff_id))
            yield tuple(layers)

    def close(self) -> None:
        """Forget the unpacked layers."""
        with self._lock:
            for extent in self._layers:
                extent.close()
            self._layers, self._view = [], None

    def _contents(self, roots: list[bytes]) -> Generator[tuple[Entry, BinaryIO | None]]:
        for found in self._merged().walk(roots):
            yield found.entry, self._content(found) if found.entry.kind is Kind.FILE else None

    def _content(self, found: Found) -> BinaryIO:
        return self._layers[found.layer].part(found.offset, found.entry.size)

    def _merged(self) -> MergedView:
        with self._lock:
            if self._view is None:
                self._view = MergedView(self._indexes())
            return self._view

    def _indexes(self) -> Iterator[LayerIndex]:
        for extent in self._layers:
            extent.close()  # of an attempt that failed
        self._layers = []
        for number in range(len(self._diff_ids)):
            self._layers.append(self.open_layer(number))
            yield read_layer(self._layers[-1].open(), layer=number)
