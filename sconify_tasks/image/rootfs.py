"""`dir:ROOTFS`: a folder as an image. Its config is the OCI image config `ROOTFS.json` beside it, if there is one.

The folder is as hostile as any image: every path is walked by descriptors with O_NOFOLLOW, so that no symlink in it
can lead out, not even one that is swapped in while it is read.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Protocol, cast

from msgspec import Struct
from msgspec.structs import replace

from sconify_cache.digest import Digest
from sconify_cache.ticks import COARSE_NS, settled_at
from sconify_tasks.ahead import Promise
from sconify_tasks.errors import SconifyError, UnavailableError, UsageError
from sconify_tasks.image.config import identity_of, parse_config
from sconify_tasks.image.content_ids import ContentIds
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.folder import (
    DIRECTORY,
    KINDS,
    Seen,
    SeenFile,
    changed,
    descend,
    fingerprint,
    fingerprints,
    linked,
    lstat,
)
from sconify_tasks.image.index import names
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import check_path, join, outermost, shown, split
from sconify_tasks.image.source import ContentWatcher, Fingerprint, not_there
from sconify_tasks.image.tar_write import order_key, write_tar

_CONFIG = 4 << 20
_PATIENCE_NS = 100 * 10**6
_LOOKS = 10
_MODIFIED, _CHANGED = 4, 5  # of a Fingerprint
_LookedAt = tuple[bytes, os.stat_result, bool, tuple[bytes, bytes]]


class StatCache(Protocol):
    """Remembers content digests by stat, so that an unchanged tree is not read again. Paths are the host's."""

    def lookup(self, path: bytes, found: os.stat_result) -> Digest | None:
        """Return the keyed BLAKE3 that `path` had when it had this very stat."""

    def remember(self, path: bytes, found: os.stat_result, content: Digest) -> None:
        """Keep a digest. `found` is from before the file was read."""


class _Findings(Struct, frozen=True, kw_only=True):
    """What an identity was made of. `config` is None where there was no file of it."""

    identity: str
    config: ImageConfig | None
    seen: dict[bytes, Fingerprint]
    content_ids: dict[bytes, bytes]


class RootfsSource:
    """A folder as a `SourceImage`."""

    def __init__(
        self,
        folder: Path,
        *,
        stat_cache: StatCache | None = None,
        content_key: bytes = bytes(32),
        platform: str = "linux/amd64",
        watcher: ContentWatcher | None = None,
        by_content: bool = True,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._by_content, self._now = by_content or watcher is not None, now
        # Sees the files that are read for the identity: who needs more of them than that spares a second look.
        self.watcher = watcher
        self._folder = folder.absolute()
        self._host = os.fsencode(self._folder)
        self._stat_cache, self._content_key = stat_cache, content_key
        try:
            self._root = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            msg = f"dir:{folder}: {error.strerror}"
            raise UnavailableError(msg, hint="name a folder that holds a root file system") from error
        self._config, self.has_config = _read_config(Path(f"{self._folder}.json"), platform)
        self._identity = ""
        # What the identity speaks of: whatever is read later must still be that.
        self._identified: dict[bytes, Fingerprint] = {}
        self._content_ids: dict[bytes, bytes] = {}
        # Of files that are being walked: the stat from before they are read.
        self._walked: dict[bytes, os.stat_result] = {}
        self._lock = Lock()

    @property
    def name(self) -> str:
        """`dir:` and the folder."""
        return f"dir:{self._folder}"

    @property
    def config(self) -> ImageConfig:
        """From the JSON beside the folder; empty where there is none."""
        return self._config

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """None: a folder has no layers."""
        return ()

    @property
    def identity(self) -> str:
        """SHA-256 over the config and, of every path, metadata and keyed content id, or else (`by_content`) its stat alone.

        By stat no file is read: it is of this folder on this machine, and changes with every write, as docs/adr/0010 has it.
        """
        with self._lock:
            if not self._identity:
                self._identity = self._measured() if self._by_content else self._measured_by_stat()
            return self._identity

    def content_identity(self) -> str:
        """The identity by content, equal for equal folders; what the stat cache knows is not read."""
        if self._by_content:
            return self.identity
        with self._lock:
            return self._measured()

    @property
    def seen(self) -> Mapping[bytes, Fingerprint] | None:
        """Every path as the identity speaks of it."""
        return self._identified or None

    @property
    def findings(self) -> object | None:
        """As `SeenSource`."""
        if not self._identity:
            return None
        config = self._config if self.has_config else None
        return _Findings(identity=self._identity, config=config, seen=self._identified, content_ids=self._content_ids)

    def resume(self, findings: object) -> None:
        """As `SeenSource`."""
        assert isinstance(findings, _Findings), "of such a source"
        if (self._config if self.has_config else None) != findings.config:
            raise SconifyError(
                f"{self._folder}.json changed since the build began", hint="build again when nobody writes to it"
            )
        self._identity, self._identified, self._content_ids = findings.identity, findings.seen, findings.content_ids

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of one path."""
        with self._seen(path) as seen:
            return seen.entry() if seen is not None else None

    def content_id(self, path: bytes) -> bytes | None:
        """As the identity was made of it, or as the stat cache has it; who walks the file notices if it changed since."""
        known = self._content_ids.get(path)
        if known is not None or self._stat_cache is None:
            return known
        found = self._walked.get(path)
        if found is None:
            with self._seen(path) as seen:
                found = seen.stat if seen is not None and seen.kind is Kind.FILE else None
        with self._lock:
            digest = self._stat_cache.lookup(self._host + path, found) if found is not None else None
        return None if digest is None else bytes.fromhex(digest)

    def learn(self, path: bytes, content_id: bytes) -> None:
        """Remember the content id of a file that is being walked."""
        found = self._walked.get(path)
        if found is not None and self._stat_cache is not None:
            with self._lock:
                self._stat_cache.remember(self._host + path, found, Digest(content_id.hex()))

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        with self._parent(path) as (parent, name):
            if parent is not None:
                with suppress(NotADirectoryError, FileNotFoundError):
                    fd = os.open(name, DIRECTORY, dir_fd=parent)
                    try:
                        return sorted(os.fsencode(child) for child in os.listdir(fd))  # noqa: PTH208
                    finally:
                        os.close(fd)
        return []

    def walk(self, roots: Iterable[bytes]) -> AbstractContextManager[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, parents first, siblings sorted."""
        return closing(self._contents(outermost(list(roots))))

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file."""
        with self._seen(path) as seen:
            if seen is None or seen.kind is not Kind.FILE:
                msg = f"{shown(path)} is not a file in {self.name}"
                raise UsageError(msg, hint="check the path")
            size = seen.stat.st_size
            if size > limit:
                msg = f"{shown(path)} has {size} bytes: more than the {limit} that are read here"
                raise UsageError(msg, hint="check the path")
            with SeenFile(seen) as file:
                content = file.read(size)
                file.finish()
                return content

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """Write the whole folder as one layer."""
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="sconify-") as scratch:
            path = Path(scratch) / "layer.tar"
            with path.open("wb") as out:
                written = write_tar(self.in_layer_order(), out)
            yield (Layer(diff_id=written.diff_id, size=written.size, path=path),)

    def close(self) -> None:
        """Close the folder's descriptor."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _measured_by_stat(self) -> str:
        """Where a file was written to just now, its next change could leave its stat as it is: this waits, and looks again."""
        for _ in range(_LOOKS):
            before = self._now()
            looked_at = fingerprints(self._root)
            latest = _latest(looked_at.values(), before)
            if latest <= before:
                self._identified = looked_at
                total = hashlib.sha256(b"stat\0" + identity_of(self._config, ()).encode())
                # marshal's second version has no references: equal lists give equal bytes. Nothing is ever loaded from them.
                total.update(marshal.dumps([(path, found[1:]) for path, found in looked_at.items()], 2))
                return total.hexdigest()
            if latest - before > _PATIENCE_NS:
                break  # a clock of seconds, or one that runs ahead
            time.sleep(max(0, latest - self._now()) / 10**9)
        return self._measured()  # contents tell

    def _measured(self) -> str:
        total = hashlib.sha256(identity_of(self._config, ()).encode())
        looked_at = {}
        # Closed at once, whatever ends it: it holds descriptors of folders.
        with ContentIds(self._content_key, self.watcher) as ids, closing(self._looked_at(ids)) as looking:
            for (path, status, is_new, (before, after)), content in ids.in_order(looking):
                if stat.S_ISREG(status.st_mode):
                    self._content_ids[path] = content
                    if self._stat_cache and is_new:
                        self._stat_cache.remember(self._host + path, status, Digest(content.hex()))
                for part in (before, content, after):
                    total.update(part)
                looked_at[path] = fingerprint(status)
        self._identified = looked_at
        return total.hexdigest()

    def _looked_at(self, ids: ContentIds) -> Generator[tuple[_LookedAt, bytes | Promise[bytes]]]:
        """Every path; a file's content id may be on its way."""
        for seen in self._descend([b"/"]):
            content: bytes | Promise[bytes] = b""
            known = None
            if stat.S_ISREG(seen.stat.st_mode):
                known = self._stat_cache.lookup(self._host + seen.path, seen.stat) if self._stat_cache else None
                content = ids.take(seen) if known is None else bytes.fromhex(known)
            yield (seen.path, seen.stat, known is None, seen.line()), content

    def _check_unchanged(self, path: bytes, found: os.stat_result | None) -> None:
        """Raise where a path is no longer what the identity was taken of: records are filed under it."""
        if self._identified and self._identified.get(path) != (found and fingerprint(found)):
            raise changed(path)

    def in_layer_order(self) -> Iterator[tuple[Entry, BinaryIO | None]]:
        """Everything, for `write_tar`: each file's content is valid until the next entry is taken."""
        entries = sorted((seen.entry() for seen in self._descend([b"/"])), key=order_key)
        for entry in entries:
            if entry.kind is not Kind.FILE or entry.hardlink:
                yield entry, None
                continue
            with self._seen(entry.path) as seen:
                if seen is None or seen.kind is not Kind.FILE:
                    raise changed(entry.path)
                with SeenFile(seen) as file:
                    yield entry, cast("BinaryIO", file)
                    file.finish()

    def _contents(self, roots: list[bytes]) -> Generator[tuple[Entry, BinaryIO | None]]:
        for seen in self._descend(roots):
            if seen.kind is Kind.FILE:
                self._walked[seen.path] = seen.stat
                with SeenFile(seen) as file:
                    yield seen.entry(), cast("BinaryIO", file)
                    file.finish()
                self._walked.pop(seen.path, None)
            else:
                yield seen.entry(), None

    def _descend(self, roots: list[bytes]) -> Iterator[Seen]:
        inodes: dict[tuple[int, int], bytes] = {}
        # Many roots may be files of one directory: it is opened once for those that follow each other.
        for directory, together in groupby(roots, key=lambda root: split(root)[0]):
            with self._parent(join(directory, b"x")) as (parent, _):
                for root in together:
                    name = split(root)[1] or b"."
                    found = lstat(parent, name) if parent is not None else None
                    if found is None or stat.S_IFMT(found.st_mode) in KINDS:
                        self._check_unchanged(root, found)
                    if parent is None or found is None:
                        raise not_there(root, self.name)
                    for seen in descend(parent, name, root, found):
                        self._check_unchanged(seen.path, seen.stat)
                        yield linked(seen, inodes)

    @contextmanager
    def _seen(self, path: bytes) -> Iterator[Seen | None]:
        """One path; None where there is nothing, or a socket."""
        with self._parent(path) as (parent, name):
            found = lstat(parent, name) if parent is not None else None
            if found is not None and stat.S_IFMT(found.st_mode) not in KINDS:
                found = None
            self._check_unchanged(path, found)
            yield Seen(path, parent, name, found) if parent is not None and found is not None else None

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int | None, bytes]]:
        """Descriptor of the directory that holds `path`, and the name in it; None where a parent is no directory."""
        check_path(path)
        parts = names(path) or [b"."]
        current: int | None = os.dup(self._root)
        try:
            for part in parts[:-1]:
                assert current is not None
                following: int | None = None
                with suppress(FileNotFoundError, NotADirectoryError):
                    following = os.open(part, DIRECTORY, dir_fd=current)
                os.close(current)
                current = following
                if current is None:
                    break
            yield current, parts[-1]
        finally:
            if current is not None:
                os.close(current)


def _latest(found: Collection[Fingerprint], before: int) -> int:
    """When the last of them settles (`settled_at`); of those that have all settled long before `before`, a time before it."""
    latest = COARSE_NS + max(max(map(itemgetter(which), found)) for which in (_MODIFIED, _CHANGED))
    return latest if latest <= before else max(settled_at(each[_MODIFIED], each[_CHANGED]) for each in found)


def _read_config(path: Path, platform: str) -> tuple[ImageConfig, bool]:
    """The config, and whether there is a file of it."""
    system, _, architecture = platform.partition("/")
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG)
    except FileNotFoundError:
        return ImageConfig(os=system, architecture=architecture), False
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise UsageError(msg, hint="make it a readable OCI image config, or remove it") from error
    config = parse_config(data)
    config = replace(config, os=config.os or system, architecture=config.architecture or architecture)
    if f"{config.os}/{config.architecture}" != platform:
        msg = f"{path} is for {config.os}/{config.architecture}, not for {platform}"
        raise UsageError(msg, hint="correct its os and architecture, or choose another image")
    return config, True
