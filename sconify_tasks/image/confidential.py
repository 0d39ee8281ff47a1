"""A native image that is a confidential one itself: what of it can be taken, and what is refused.

Of a confidential image only what everybody may read is of use to another: libraries, plain files, what its base brought.
Its protected files are ciphertext whose key is in its session, its binary is the runtime, and so is every program of it that
is encrypted; its command and environment are not in the image. Taken over, they would look like files and be noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import BinaryIO

from msgspec.structs import replace

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import below, shown
from sconify_tasks.image.source import ContentIdSource, ContentWatcher, Fingerprint, LearningSource, SeenSource, SourceImage

_LARGEST_MANIFEST = 256 << 20
_HINT = "name its native image instead"
_OWN_VARIABLE = "SCONE_CONFIG_ID="


class NativeSource:
    """A source as the steps see the native image. A confidential one yields no file that it protects: UsageError names it.

    `keys` are those under which its manifest may be sealed: with none that fits, nobody can tell what it protects, and
    nothing of it is taken. The identity is asked for without looking into the image, and a run that asks for nothing else
    loads nothing of protected files.
    """

    def __init__(self, source: SourceImage, *, keys: Callable[[], Iterable[bytes]]) -> None:
        self._source, self._keys = source, keys
        self._content_id = source.content_id if isinstance(source, ContentIdSource) else None
        self._learn = source.learn if isinstance(source, LearningSource) else None

    @property
    def name(self) -> str:
        """As `SourceImage`."""
        return self._source.name

    @property
    def engine_id(self) -> str | None:
        """The Id that an engine knows the image by."""
        return getattr(self._source, "engine_id", None)

    @property
    def documents(self) -> tuple[str, ...] | None:
        """The files of a layout that the identity rests on; None for another source."""
        return getattr(self._source, "documents", None)

    @property
    def seen(self) -> Mapping[bytes, Fingerprint] | None:
        """As `SeenSource`; None for another source."""
        return getattr(self._source, "seen", None)

    @property
    def watcher(self) -> ContentWatcher | None:
        """Who saw the files that a folder's identity was made of."""
        return getattr(self._source, "watcher", None)

    @property
    def identity(self) -> str:
        """As `SourceImage`."""
        return self._source.identity

    @property
    def has_config(self) -> bool:
        """As `SeenSource`."""
        return isinstance(self._source, SeenSource) and self._source.has_config

    @property
    def findings(self) -> object | None:
        """As `SeenSource`; None for another source."""
        return getattr(self._source, "findings", None)

    def resume(self, findings: object) -> None:
        """As `SeenSource`."""
        assert isinstance(self._source, SeenSource), "findings are of folders"
        self._source.resume(findings)

    def content_identity(self) -> str:
        """As `SeenSource`."""
        return self._source.content_identity() if isinstance(self._source, SeenSource) else self._source.identity

    def content_id(self, path: bytes) -> bytes | None:
        """As `ContentIdSource`, where the source is one."""
        return self._content_id(path) if self._content_id else None

    def learn(self, path: bytes, content_id: bytes) -> None:
        """As `LearningSource`, where the source is one."""
        if self._learn is not None:
            self._learn(path, content_id)

    @property
    def layers_read(self) -> int | None:
        """How many layers were opened; None where the source has none in files here."""
        return getattr(self._source, "layers_read", None)

    @property
    def config(self) -> ImageConfig:
        """As `SourceImage`, without the variables that are for the confidential image's own runtime."""
        config = self._source.config
        if self._sealed is None:
            return config
        return replace(config, env=tuple(each for each in config.env if not each.startswith("SCONE_")))

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """As `SourceImage`."""
        return self._source.diff_ids

    def lstat(self, path: bytes) -> Entry | None:
        """As `SourceImage`."""
        return self._source.lstat(path)

    def listdir(self, path: bytes) -> list[bytes]:
        """As `SourceImage`."""
        return self._source.listdir(path)

    @contextmanager
    def walk(self, roots: Iterable[bytes]) -> Iterator[Iterator[tuple[Entry, BinaryIO | None]]]:
        """As `SourceImage`; UsageError at the first protected file."""
        with self._source.walk(roots) as stream:
            yield stream if self._sealed is None else self._checked(stream)

    def read(self, path: bytes, *, limit: int) -> bytes:
        """As `SourceImage`; UsageError for a protected file."""
        self._check(path)
        return self._source.read(path, limit=limit)

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """As `SourceImage`."""
        with self._source.layer_files() as layers:
            yield layers

    def close(self) -> None:
        """As `SourceImage`."""
        self._source.close()

    def _checked(self, stream: Iterator[tuple[Entry, BinaryIO | None]]) -> Iterator[tuple[Entry, BinaryIO | None]]:
        for entry, content in stream:
            if entry.kind is not Kind.DIR:
                self._check(entry.path)
            yield entry, content

    def _check(self, path: bytes) -> None:
        if self._sealed is None:
            return
        from sconify_tasks.fspf.names import FSPF_DIRECTORY

        if path in self._sealed or below(path, FSPF_DIRECTORY):
            raise UsageError(f"{self.name} is a confidential image, and {shown(path)} is of use only to itself", hint=_HINT)

    @cached_property
    def _sealed(self) -> frozenset[bytes] | None:
        """Paths whose content is the runtime or ciphertext; None where the image is no confidential one."""
        from sconify_tasks.fspf.entries import Flag
        from sconify_tasks.fspf.errors import MalformedError
        from sconify_tasks.fspf.manifest import fspf_tag, open_manifest
        from sconify_tasks.fspf.names import MANIFEST_PATH
        from sconify_tasks.fspf.regions import Protection

        found = self._source.lstat(MANIFEST_PATH)
        if found is None or found.kind is not Kind.FILE:
            _refuse_embedded(self._source, self.name, hint=_HINT)
            return None
        stored = self._source.read(MANIFEST_PATH, limit=_LARGEST_MANIFEST)
        for key in self._keys():
            try:
                entries = open_manifest(key, fspf_tag(stored), stored).entries
            except MalformedError:
                continue
            return frozenset(
                entry.meta.path
                for entry in entries
                if entry.meta.kind is not Kind.DIR and (entry.protection is Protection.ENCRYPTED or entry.flags & Flag.MAIN)
            )
        raise UsageError(
            f"{self.name} is a confidential image, of another project or key epoch: what it protects can't be told", hint=_HINT
        )


def _refuse_embedded(source: SourceImage, name: str, *, hint: str) -> None:
    """UsageError for an image whose files lie in its binary: the runtime stands at their paths, and no manifest says so."""
    if any(each.startswith(_OWN_VARIABLE) for each in source.config.env):
        raise UsageError(
            f"{name} is a confidential image, and its files are in its binary: nothing of it can be taken", hint=hint
        )


def refuse_confidential_base(base: SourceImage) -> None:
    """UsageError for a base that has a manifest: ours would go over it, and the base's own program could no longer start."""
    from sconify_tasks.fspf.names import MANIFEST_PATH

    if base.lstat(MANIFEST_PATH) is not None:
        raise UsageError(
            f"the base {base.name} is a confidential image: its program would find this image's manifest in place of its own",
            hint="name the base that it was built on",
        )
    _refuse_embedded(base, f"the base {base.name}", hint="name the base that it was built on")
