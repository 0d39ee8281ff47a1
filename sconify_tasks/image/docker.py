"""`docker:NAME`: an image of a Docker Engine.

Its files come from the engine's own folders (`unpacked.py`) where they can be read, else from the archives of a container
that is never started (`archived.py`): both show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.image.config import config_of, identity_of, parse_diff_ids
from sconify_tasks.image.engine import api_of, engine_errors
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index_form import decode_paths, encode_paths
from sconify_tasks.image.learned import LayerMemory, LearnedContents
from sconify_tasks.image.listing import keeps_owners
from sconify_tasks.image.manifest import mapping
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.unpacked import LayerFolders, find_folders

if TYPE_CHECKING:
    from docker import DockerClient

    from sconify_tasks.image.archived import ContainerArchives
    from sconify_tasks.image.folder import Seen

_TRANSFER = 2 << 20  # the SDK's own default, and the fastest


class DockerSource:
    """One image of an engine as a `SourceImage`.

    With the `host` of the engine (as in DOCKER_HOST, "" for the usual one) its folders are read where that is possible;
    `client` is called for everything else. `inspected` is what the engine says of the image, if it was asked already.
    """

    def __init__(
        self,
        client: Callable[[], DockerClient],
        reference: str,
        *,
        platform: str = "linux/amd64",
        host: str | None = None,
        inspected: dict[str, Any] | None = None,
        memory: LayerMemory | None = None,
    ) -> None:
        self._client, self._reference, self._host = client, reference, host
        if inspected is None:
            with engine_errors(self.name):
                inspected = api_of(client()).inspect_image(reference)
        self._inspected = inspected
        self._config = config_of(inspected, inspected.get("Config") or {})
        self._diff_ids = parse_diff_ids(mapping(inspected.get("RootFS")).get("Layers"))
        actual = f"{self._config.os}/{self._config.architecture}"
        if actual != platform:
            msg = f"{self.name} is an image for {actual}, not for {platform}"
            raise UsageError(msg, hint="choose another image")
        self._lock = RLock()
        self._files: LayerFolders | ContainerArchives | None = None
        self._contents = LearnedContents(memory, self._diff_ids, "paths", encode=encode_paths, decode=decode_paths)

    @property
    def name(self) -> str:
        """`docker:` and the name."""
        return f"docker:{self._reference}"

    @property
    def identity(self) -> str:
        """SHA-256 over layers and config; never the engine's Id, whose meaning differs between engines."""
        return identity_of(self._config, self._diff_ids)

    @property
    def engine_id(self) -> str:
        """What the engine calls the image; it means the same image whenever it is seen again."""
        return str(self._inspected["Id"])

    @property
    def config(self) -> ImageConfig:
        """The parsed image config; its `raw` is what inspect returned."""
        return self._config

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """Digests of the uncompressed layers, the lowest first."""
        return self._diff_ids

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of one path."""
        return self._opened().lstat(path)

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        return self._opened().listdir(path)

    def walk(self, roots: Iterable[bytes]) -> AbstractContextManager[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, in the order of who reads it."""
        return self._opened().walk(roots)

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file."""
        return self._opened().read(path, limit=limit)

    def content_id(self, path: bytes) -> bytes | None:
        """What somebody learned of a file of the same layer; only of folders it is known in which layer a file lies."""
        found = self._in_layer(path)
        return self._contents.get(found[1], path) if found is not None and found[0].kind is Kind.FILE else None

    def learn(self, path: bytes, content_id: bytes) -> None:
        """Take a content id from who has read all of the file."""
        found = self._in_layer(path)
        if found is not None:
            self._contents.learn(found[1], path, content_id)

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """Export the image and keep its layers in nameless temporary files."""
        from sconify_tasks.image.exported import keep_layer, layer_of
        from sconify_tasks.image.streams import Chunks
        from sconify_tasks.image.tar_read import Member, members

        wanted = set(self._diff_ids)
        kept: dict[Sha256, BinaryIO] = {}
        try:
            with engine_errors(self.name):
                stream = api_of(self._client()).get_image(self._inspected["Id"], chunk_size=_TRANSFER)
                for item, content in members(cast("BinaryIO", Chunks(stream))):
                    if isinstance(item, Member) and content is not None and len(kept) < len(wanted):
                        keep_layer(item.entry.path, content, wanted, kept)
            if missing := sorted(wanted - kept.keys()):
                msg = f"{self.name}: the engine's export lacks the layer {missing[0]}"
                raise UnavailableError(msg, hint="pull or build the image again")
            yield tuple(layer_of(digest, kept[digest]) for digest in self._diff_ids)
        finally:
            for file in kept.values():
                file.close()

    def close(self) -> None:
        """Keep what was learned; remove the temporary containers, or close the folders."""
        self._contents.close()
        with self._lock:
            if self._files is not None:
                self._files.close()
                self._files = None

    def __del__(self) -> None:
        with suppress(Exception):
            if self._files is not None:
                self._files.close()

    def _in_layer(self, path: bytes) -> tuple[Seen, int] | None:
        files = self._opened()
        return files.find(path) if isinstance(files, LayerFolders) else None

    def _opened(self) -> LayerFolders | ContainerArchives:
        if self._files is None:
            with self._lock:
                if self._files is None:
                    self._files = self._open()
        return self._files

    def _open(self) -> LayerFolders | ContainerArchives:
        folders = find_folders(self._inspected, layers=len(self._diff_ids)) if self._host is not None else None
        if folders is not None and self._host is not None and keeps_owners(self._host):
            return LayerFolders(folders, name=self.name)
        from sconify_tasks.image.archived import ContainerArchives

        size = self._inspected.get("Size")
        size = size if isinstance(size, int) else 0
        return ContainerArchives(self._client, self._inspected["Id"], name=self.name, size=size)
