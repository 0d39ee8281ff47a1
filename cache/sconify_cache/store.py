"""Contracts of a content-addressed store: small Protocols that grow by capability.

A blob is named by the BLAKE3 digest of its bytes. It is complete or absent, never half there, and never changed once
there. What is read was verified: a damaged blob is absent. Every failure of the disk is a StoreError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from msgspec import Struct

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError


class MissingBlobError(StoreError):
    """The blob is not there, or was damaged and therefore counts as not there: whoever needs it makes it again."""

    def __init__(self, digest: Digest, *, damaged: bool = False) -> None:
        reason = "was damaged and has been set aside" if damaged else "is not in the store"
        super().__init__(f"cache: blob {digest[:16]}… {reason}", hint="run the build again: it makes what is missing")
        self.digest = digest
        self.damaged = damaged


class BlobInfo(Struct, frozen=True, kw_only=True):
    """A blob as a listing shows it: unverified. `used_ns` is its last use, a day exact; `private` blobs stay local."""

    digest: Digest
    size: int
    used_ns: int
    private: bool


class BlobWriter(Protocol):
    """A blob that is being written. `digest` is known after the `with` block that made it; before, it raises ValueError."""

    @property
    def digest(self) -> Digest:
        """BLAKE3 of what was written."""

    @property
    def size(self) -> int:
        """Bytes written so far."""

    def so_far(self) -> Digest:
        """BLAKE3 of what was written until now: whoever expects other bytes raises, and nothing is kept."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append all of `data`; returns its length."""


class Store(Protocol):
    """What can be read."""

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there. Does not read it: reading may still find it damaged. Counts as a use."""

    def size(self, digest: Digest) -> int:
        """Length in bytes, not verified; raises MissingBlobError."""

    def get(self, digest: Digest) -> bytes:
        """Read the whole blob, verified on every call; raises MissingBlobError. For small blobs: it is all in memory."""

    def open(self, digest: Digest) -> BinaryIO:
        """Open a stream at the blob's start; raises MissingBlobError. The caller closes it.

        Verified on the first open per process, and again when the file's stat changed.
        """


class WritableStore(Store, Protocol):
    """What can be added to. It lies in a local file system.

    Adding is idempotent and atomic: another process sees all of a blob or none of it, and adding what is there
    changes nothing. `private` blobs (mode 0400) never leave this machine; a blob that was ever added as public is public.
    """

    def put(self, data: bytes, *, private: bool = False) -> Digest:
        """Add a blob that is in memory."""

    def writer(self, *, private: bool = False) -> AbstractContextManager[BlobWriter]:
        """Add a blob piece by piece: it is hashed while written, committed when the block ends, dropped when it raises."""

    def adopt(self, path: Path, *, private: bool = False) -> Digest:
        """Take over a finished file of the same file system (see `scratch`): it is hashed where it lies and renamed.

        Nobody may hold it open for writing. `path` is gone afterwards. StoreError where it is no regular file.
        """

    def scratch(self) -> AbstractContextManager[Path]:
        """Make a folder in the store's file system, removed with everything in it when the block ends, or by the next run."""

    def is_private(self, digest: Digest) -> bool:
        """Whether the blob was only ever added as private; raises MissingBlobError."""

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, verified as by `open`; raises MissingBlobError. To be read or linked, never written."""


class PrunableStore(WritableStore, Protocol):
    """What can be listed and cleaned."""

    def iterate(self) -> Iterator[BlobInfo]:
        """Every blob, in the order of digests."""

    def delete(self, digest: Digest, *, spare: Callable[[int], bool] | None = None) -> bool:
        """Remove a blob. Returns whether it went; idempotent.

        `spare`, given the time of its last use, may still keep it. It is asked when the blob is out of everybody's reach,
        so that nobody can begin to rely on it between the question and the deletion.
        """

    def check(self, digest: Digest, *, repair: bool = True) -> int:
        """Hash the blob again, whatever was verified before, without counting as a use. Returns its size.

        Raises MissingBlobError (`damaged` says why); with `repair`, a damaged blob is set aside.
        """

    def discard_damaged(self) -> int:
        """Delete what was set aside as damaged; returns how many files."""
