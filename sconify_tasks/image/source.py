"""The interface of a source: an image that can be read. One implementation per file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol, runtime_checkable

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import shown


class SourceImage(Protocol):
    """A readable image: the merged view of its layers, whiteouts applied.

    Paths given are absolute and normalised; no symlink in them is followed (see `resolve.py` for that). Everything it
    yields is untrusted content, already checked for shape: no path escapes the root, sizes are bounded by the archive.
    """

    @property
    def name(self) -> str:
        """As the user wrote it, with its transport: `docker:app:1`, `dir:/srv/rootfs`."""

    @property
    def identity(self) -> str:
        """SHA-256 hex over RootFS.Layers and Config in canonical JSON: equal on every engine, and never the engine's Id.

        For `dir:` it covers every path's metadata and content, the latter by keyed ids through a stat cache.
        """

    @property
    def config(self) -> ImageConfig:
        """The image config, parsed and checked."""

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """Empty for `dir:`."""

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of one path; None where it, or a parent, does not exist or a parent is not a directory.

        Times are whole seconds, and 0 for `/`, `/dev` and `/etc`: that is what engines and layouts agree on.
        """

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""

    def walk(self, roots: Iterable[bytes]) -> AbstractContextManager[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, once. The stream is valid until the next entry is taken.

        Every file comes with its content; of files that share an inode, all but the first yielded name that one as
        `hardlink` (which `lstat` never does), as far as the source can tell across roots. Parents come before children;
        otherwise the order is the source's own. Raises UsageError naming a root that does not exist.
        """

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file of at most `limit` bytes; UsageError where it is none or larger."""

    def layer_files(self) -> AbstractContextManager[tuple[Layer, ...]]:
        """Give the layers as uncompressed tars in files, for a sink that lacks them. Costs an export on an engine."""

    def close(self) -> None:
        """Give back what the source holds (descriptors, an engine's temporary container). May be called twice."""


def readable(entry: Entry | None, path: bytes, *, limit: int, name: str) -> None:
    """UsageError for what `SourceImage.read` refuses: no regular file of the image `name`, or a larger one."""
    if entry is None or entry.kind is not Kind.FILE:
        msg = f"{shown(path)} is not a file in {name}"
        raise UsageError(msg, hint="check the path")
    if entry.size > limit:
        msg = f"{shown(path)} has {entry.size} bytes: more than the {limit} that are read here"
        raise UsageError(msg, hint="check the path")


def not_there(root: bytes, name: str) -> UsageError:
    """What `SourceImage.walk` raises of a root that the image `name` does not have."""
    return UsageError(f"{shown(root)} does not exist in {name}", hint="check the path, or leave it out")


@runtime_checkable
class ContentIdSource(Protocol):
    """A source that may know a file's content without reading it."""

    def content_id(self, path: bytes) -> bytes | None:
        """The keyed content id of a file, under the key that the source was given; None where it is not known."""


@runtime_checkable
class LearningSource(ContentIdSource, Protocol):
    """A source that does not take content ids itself, and remembers those that others took."""

    def learn(self, path: bytes, content_id: bytes) -> None:
        """The content id of a file of which all was read."""


Fingerprint = tuple[int, int, int, int, int, int]
"""Device, inode, mode, size, modification and change time (ns) of a path."""


@runtime_checkable
class SeenSource(Protocol):
    """A source that is a folder of this machine."""

    @property
    def seen(self) -> Mapping[bytes, Fingerprint] | None:
        """Every path as the identity speaks of it; None where that was not asked for."""

    @property
    def has_config(self) -> bool:
        """Whether there was a config beside the folder."""

    def content_identity(self) -> str:
        """An identity that folders of equal content share; of what is no folder the identity."""

    @property
    def findings(self) -> object | None:
        """What the identity speaks of, for `resume`; None where that was not asked for, or the source is no folder."""

    def resume(self, findings: object) -> None:
        """Be the folder that another source of it found: what is read must still be that. SconifyError where it is not."""


@runtime_checkable
class WholeFile(Protocol):
    """A stream of `SourceImage.walk` that is a file of this machine, and can be had longer than until the next entry."""

    def hand_over(self) -> tuple[int, Callable[[int], None]]:
        """Its descriptor, from now on the caller's to close; and what is to be called with it when all was read.

        That raises where the file is not what was seen, or was written to meanwhile.
        """


TakeBlock = Callable[[memoryview], None]


class ContentWatcher(Protocol):
    """Somebody who takes the content of some files of a folder while they are read for its identity."""

    def watch(self, path: bytes) -> TakeBlock | None:
        """Who gets the blocks of this file, in order and on one thread, each 256 KiB but the last; None where nobody wants it.

        A block is gone when the call returns.
        """
