"""An image whose layers lie in files here, as a `SourceImage`. How the layers are opened is the transport's business."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import BinaryIO, cast

from sconify_tasks.errors import UsageError
from sconify_tasks.image.config import identity_of, parse_diff_ids
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.extent import Extent
from sconify_tasks.image.index import LayerIndex, read_layer
from sconify_tasks.image.index_form import decode_contents, decode_index, encode_contents, encode_index
from sconify_tasks.image.learned import LayerMemory, LearnedContents
from sconify_tasks.image.manifest import mapping
from sconify_tasks.image.merge import Found, MergedView
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import check_path
from sconify_tasks.image.source import readable
from sconify_tasks.image.streams import LatePart


class LayeredSource:
    """Layers are indexed when something inside is asked for, and unpacked when a memory does not know their index already.

    Content ids are learned from who reads the files, and kept when the source is closed.
    """

    def __init__(self, *, name: str, config: ImageConfig, platform: str, memory: LayerMemory | None = None) -> None:
        self._name, self._config, self._memory = name, config, memory
        self._diff_ids = parse_diff_ids(mapping(config.raw.get("rootfs")).get("diff_ids"))
        actual = f"{config.os}/{config.architecture}"
        if not f"{platform}/".startswith(f"{actual}/"):
            msg = f"{name} is an image for {actual}, not for {platform}"
            raise UsageError(msg, hint="choose another image")
        self._lock = Lock()
        self._layers: dict[int, Extent] = {}
        self._view: MergedView | None = None
        self._learned = LearnedContents(memory, self._diff_ids, "contents", encode=encode_contents, decode=decode_contents)
        self.layers_read = 0

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

    def content_id(self, path: bytes) -> bytes | None:
        """What somebody learned of the content; a layer that is opened is verified, so it still is that."""
        found = self._merged().lstat(path)
        if found is None or found.entry.kind is not Kind.FILE:
            return None
        return self._learned.get(found.layer, found.offset)

    def learn(self, path: bytes, content_id: bytes) -> None:
        """Take a content id from who has read all of the file."""
        found = self._merged().lstat(path)
        if found is not None:
            self._learned.learn(found.layer, found.offset, content_id)

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
        with ExitStack() as copies:
            layers = []
            for number, diff_id in enumerate(self._diff_ids):
                extent = self._opened(number)
                alone = extent.alone()
                if alone is not extent:
                    copies.callback(alone.close)
                layers.append(alone.layer(diff_id))
            yield tuple(layers)

    def close(self) -> None:
        """Keep what was learned, and forget the unpacked layers."""
        self._learned.close()
        with self._lock:
            for extent in self._layers.values():
                extent.close()
            self._layers, self._view = {}, None

    def _contents(self, roots: list[bytes]) -> Generator[tuple[Entry, BinaryIO | None]]:
        for found in self._merged().walk(roots):
            yield found.entry, self._content(found) if found.entry.kind is Kind.FILE else None

    def _content(self, found: Found) -> BinaryIO:
        return cast("BinaryIO", LatePart(lambda: self._opened(found.layer).part(found.offset, found.entry.size)))

    def _merged(self) -> MergedView:
        with self._lock:
            if self._view is None:
                self._view = MergedView(self._indexes())
            return self._view

    def _opened(self, number: int) -> Extent:
        with self._lock:
            return self._open(number)

    def _open(self, number: int) -> Extent:
        """Open a layer once; the lock is held."""
        if number not in self._layers:
            self._layers[number] = self.open_layer(number)
            self.layers_read += 1
        return self._layers[number]

    def _indexes(self) -> Iterator[LayerIndex]:
        for number, diff_id in enumerate(self._diff_ids):
            known = self._memory.recall(diff_id, "index") if self._memory else None
            if known is not None:
                yield decode_index(known, layer=number)
                continue
            index = read_layer(self._open(number).open(), layer=number)
            if self._memory is not None:
                self._memory.keep(diff_id, "index", encode_index(index))
            yield index
