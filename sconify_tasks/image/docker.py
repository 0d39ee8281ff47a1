"""`docker:NAME`: an image of a Docker Engine, read through a container that is created and never started.

The container is labelled with its owner, so that the next run removes what a killed one left. What the engine itself
puts into every container (`/.dockerenv`, `/etc/hosts`, ...) is no part of the image and is left out.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from sconify_tasks.errors import SconifyError, UnavailableError, UsageError
from sconify_tasks.image.config import config_of, identity_of, parse_diff_ids
from sconify_tasks.image.engine import api_of, engine_errors
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.held import Held
from sconify_tasks.image.model import ImageConfig, Layer, Sha256
from sconify_tasks.image.paths import below, check_path, outermost, settled_mtime, shown, split
from sconify_tasks.image.streams import CHUNK, Forward, uncompressed
from sconify_tasks.image.tar_read import Member, members
from sconify_tasks.image.temporary import engine_time, new_container, remove_container, sweep

if TYPE_CHECKING:
    from docker import DockerClient

_TRANSFER = 2 << 20  # the SDK's own default, and the fastest
# A look-up costs some 60 ms of mounting, in which the engine streams as many bytes: after enough look-ups, one stream
# of the whole image, of which only the headers are kept, is cheaper.
_BYTES_PER_LOOKUP = 12 << 20
_PATIENCE = 4
# A loader asks for many libraries in few directories: the second question is answered with the whole directory, if it has
# no more bytes than this.
_DIRECTORY = 64 << 20
_CLOCK = 2_000_000_000  # archives have whole seconds, and file systems a clock that lags
_ENGINE_OWN = frozenset(
    {
        b"/dev/console",
        b"/dev/pts",
        b"/dev/shm",
        b"/etc/hostname",
        b"/etc/hosts",
        b"/etc/mtab",
        b"/etc/resolv.conf",
        b"/proc",
        b"/sys",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Container:
    id: str
    created: int  # by the engine's clock, in nanoseconds


class DockerSource:
    """One image of an engine as a `SourceImage`. Inspecting costs one call; the container is made when something is read."""

    def __init__(self, client: DockerClient, reference: str, *, platform: str = "linux/amd64") -> None:
        self._client, self._reference = client, reference
        self._api = api_of(client)
        with engine_errors(self.name):
            self._inspected: dict[str, Any] = self._api.inspect_image(reference)
        self._config = config_of(self._inspected, self._inspected.get("Config") or {})
        self._diff_ids = parse_diff_ids((self._inspected.get("RootFS") or {}).get("Layers"))
        actual = f"{self._config.os}/{self._config.architecture}"
        if actual != platform:
            msg = f"{self.name} is an image for {actual}, not for {platform}"
            raise UsageError(msg, hint="choose another image")
        self._lock = RLock()
        self._made: _Container | None = None
        self._known: dict[bytes, Entry | None] = {}
        self._asked = 0
        self._held = Held()
        self._asked_in: set[bytes] = set()
        self._tried: set[bytes] = set()
        self._whole: dict[bytes, Entry] | None = None

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
        """Metadata of one path; remembered, and after some questions all of them are fetched at once."""
        check_path(path)
        with self._lock:
            if self._whole is not None:
                return self._whole.get(path)
            if path not in self._known:
                # The engine follows symlinks in parents: so each parent is looked at first.
                parent = None if path == b"/" else self.lstat(split(path)[0])
                inside = path == b"/" or (parent is not None and parent.kind is Kind.DIR)
                if inside and self._is_library(path):
                    self._hold(split(path)[0])
                if path not in self._known:
                    self._known[path] = self._fetch(path) if inside and self._held.archive(path) is None else None
            return self._known.get(path)

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        with self._lock:
            found = self.lstat(path)
            if found is None or found.kind is not Kind.DIR:
                return []
            self._hold(path)
            archive = self._held.archive(path)
            everything = (entry.path for entry in self._held.entries(archive)) if archive else self._everything()
            return sorted(name for parent, name in map(split, everything) if parent == path and name)

    @contextmanager
    def walk(self, roots: Iterable[bytes]) -> Iterator[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, in the order of the engine's archive."""
        walking = self._walk(outermost(list(roots)))
        try:
            yield walking
        finally:
            walking.close()

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file."""
        entry = self.lstat(path)
        if entry is None or entry.kind is not Kind.FILE:
            msg = f"{shown(path)} is not a file in {self.name}"
            raise UsageError(msg, hint="check the path")
        if entry.size > limit:
            msg = f"{shown(path)} has {entry.size} bytes: more than the {limit} that are read here"
            raise UsageError(msg, hint="check the path")
        with self._file(path) as content:
            return content.read()

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """Export the image and keep its layers in nameless temporary files."""
        wanted = set(self._diff_ids)
        kept: dict[Sha256, BinaryIO] = {}
        try:
            with engine_errors(self.name):
                stream = self._api.get_image(self._inspected["Id"], chunk_size=_TRANSFER)
                for item, content in members(cast("BinaryIO", _Chunks(stream))):
                    if isinstance(item, Member) and content is not None and len(kept) < len(wanted):
                        _keep(item.entry.path, content, wanted, kept)
            if missing := sorted(wanted - kept.keys()):
                msg = f"{self.name}: the engine's export lacks the layer {missing[0]}"
                raise UnavailableError(msg, hint="pull or build the image again")
            yield tuple(_layer(digest, kept[digest]) for digest in self._diff_ids)
        finally:
            for file in kept.values():
                file.close()

    def close(self) -> None:
        """Remove the temporary container."""
        with self._lock:
            made, self._made = self._made, None
            self._held.close()
        if made is not None:
            with suppress(SconifyError):  # an engine that went away: the next run sweeps
                remove_container(self._client, made.id)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def _container(self) -> _Container:
        with self._lock:
            if self._made is None:
                with engine_errors(self.name):
                    sweep(self._client)
                    container = new_container(self._client, self._inspected["Id"])
                    self._made = _Container(id=container, created=engine_time(self._client, container))
            return self._made

    def _fetch(self, path: bytes) -> Entry | None:
        """Take the first header of the path's archive: a HEAD request knows neither owner nor a symlink's own target."""
        self._asked += 1
        if self._asked > _PATIENCE + int(self._inspected.get("Size") or 0) // _BYTES_PER_LOOKUP:
            return self._everything().get(path)
        with closing(self._archive(path)) as archive:
            entry, _ = next(archive, (None, None))
        if entry is None or entry.path != path:  # the engine's own directory, with something of the image below it
            return None
        return replace(_shared(entry, self.lstat(entry.hardlink)), hardlink=b"") if entry.hardlink else entry

    def _everything(self) -> dict[bytes, Entry]:
        with self._lock:
            if self._whole is None:
                whole: dict[bytes, Entry] = {}
                with closing(self._archive(b"/")) as archive:
                    for entry, _ in archive:
                        whole[entry.path] = replace(_shared(entry, whole.get(entry.hardlink)), hardlink=b"")
                self._whole = whole
            return self._whole

    def _walk(self, roots: list[bytes]) -> Generator[tuple[Entry, BinaryIO | None]]:
        for root in roots:
            if self.lstat(root) is None:
                msg = f"{shown(root)} does not exist in {self.name}"
                raise UsageError(msg, hint="check the path, or leave it out")
        for source, wanted in self._sources(roots):
            with closing(self._members(source)) as members_:
                for found, content in members_:
                    if not _asked_for(found.path, wanted):
                        continue
                    if found.hardlink:
                        with self._file(found.hardlink if self._held.has(found.hardlink) else found.path) as linked:
                            yield (found if _asked_for(found.hardlink, wanted) else replace(found, hardlink=b"")), linked
                    else:
                        yield found, content

    def _sources(self, roots: list[bytes]) -> Iterator[tuple[bytes, frozenset[bytes]]]:
        """Which archives to read, each with the roots that it is read for: those that are held, and few of the engine's."""
        held: dict[bytes, set[bytes]] = {}
        others = []
        for root in roots:
            archive = self._held.archive(root)
            if archive is None:
                others.append(root)
            else:
                held.setdefault(archive, set()).add(root)
        for archive, wanted in held.items():
            yield archive, frozenset(wanted)
        if len(others) > _PATIENCE:
            # Many roots come from one stream, and what is not asked for is passed over.
            yield _common(others), frozenset(others)
        else:
            for root in others:
                yield root, frozenset([root])

    def _members(self, root: bytes, *, budget: int | None = None) -> Generator[tuple[Entry, BinaryIO | None]]:
        """Yield what lies at and below a root: what is held, else the engine's archive, held on its way past."""
        if self._held.archive(root) == root:
            for entry in self._held.entries(root):
                yield entry, self._held.open(entry.path)
            return
        seen, whole = [], True
        with closing(self._archive(root)) as archive:
            for entry, content in archive:
                if budget is not None and (budget := budget - entry.size) < 0:
                    return
                found = _shared(entry, self.lstat(entry.hardlink)) if entry.hardlink else entry
                kept = self._held.keep(found, content) if content is not None else None
                whole = whole and (content is None or kept is not None)
                seen.append(found)
                with self._lock:
                    self._known[entry.path] = replace(found, hardlink=b"")
                yield found, content if kept is None else kept
        if whole:
            self._held.complete(root, tuple(seen))

    def _is_library(self, path: bytes) -> bool:
        """Whether it is the second library of its directory that is asked for."""
        parent, name = split(path)
        if b".so" not in name or parent == b"/":
            return False
        if parent in self._asked_in:
            return True
        self._asked_in.add(parent)
        return False

    def _hold(self, directory: bytes) -> None:
        """Try, once, to hold all of a directory."""
        if self._held.archive(directory) is None and directory not in self._tried:
            self._tried.add(directory)
            for _ in self._members(directory, budget=_DIRECTORY):
                pass

    @contextmanager
    def _file(self, path: bytes) -> Iterator[BinaryIO]:
        """Open one file; alone in an archive, a hard link comes with its content."""
        held = self._held.open(path)
        if held is not None:
            yield held
            return
        with closing(self._archive(path)) as archive:
            entry, content = next(archive, (None, None))
            if content is not None:
                yield content
            elif entry is not None and entry.hardlink:
                with self._file(entry.hardlink) as shared:
                    yield shared
            else:
                msg = f"{shown(path)} vanished from {self.name}"
                raise SconifyError(msg, hint="build again")

    def _archive(self, path: bytes) -> Generator[tuple[Entry, BinaryIO | None]]:
        """Yield the members of the engine's archive of `path`, with the paths they have in the image; none if it is missing."""
        from docker import errors

        container = self._container()
        asked = _textual(path)
        with engine_errors(f"{self.name}: {shown(path)}"):
            try:
                stream, _ = self._api.get_archive(container.id, asked, _TRANSFER)
            except errors.NotFound:
                return
            with closing(stream):
                for item, content in members(cast("BinaryIO", _Chunks(stream))):
                    entry = _translated(item.entry, asked) if isinstance(item, Member) else None
                    if entry and below(entry.path, path) and not _engines_own(entry, container.created):
                        yield entry, content


def _common(paths: list[bytes]) -> bytes:
    """Return the deepest directory that all paths lie in."""
    first, last = (path.split(b"/")[:-1] for path in (min(paths), max(paths)))
    shared = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
    return b"/".join(shared) or b"/"


def _asked_for(path: bytes, roots: frozenset[bytes]) -> bool:
    """Whether `path` is one of the roots or lies below one."""
    while path not in roots and path != b"/":
        path = split(path)[0]
    return path in roots


def _textual(path: bytes) -> bytes:
    """Return the nearest ancestor that is UTF-8: of other paths the engine gives an empty archive."""
    while True:
        try:
            path.decode()
        except UnicodeDecodeError:
            path = split(path)[0]
        else:
            return path


def _translated(entry: Entry, root: bytes) -> Entry:
    """The engine names the members of the archive of `/a/b` `b` and `b/...`, hard links' targets too."""
    path = _rebased(entry.path, root)
    hardlink = _rebased(entry.hardlink, root) if entry.hardlink else b""
    return replace(entry, path=path, hardlink=hardlink, mtime=settled_mtime(path, entry.mtime))


def _shared(link: Entry, target: Entry | None) -> Entry:
    """Give a hard link of the engine's archive what it shares; an engine links symlinks and devices too."""
    if not link.hardlink or target is None:
        return link
    return replace(target, path=link.path, hardlink=link.hardlink if target.kind is Kind.FILE else b"")


def _rebased(path: bytes, root: bytes) -> bytes:
    name = split(root)[1]
    if root == b"/":
        return path
    if not below(path, b"/" + name):
        msg = f"the engine's archive of {shown(root)} holds {shown(path)}"
        raise UsageError(msg, hint="report this: the engine behaves as none that is known")
    return root + path[1 + len(name) :]


def _engines_own(entry: Entry, created: int) -> bool:
    """Whether the engine made it for the container: it is empty, and not older than the container."""
    if entry.path == b"/.dockerenv":
        return True
    return entry.path in _ENGINE_OWN and entry.size == 0 and entry.mtime >= created - _CLOCK


def _keep(path: bytes, content: BinaryIO, wanted: set[Sha256], kept: dict[Sha256, BinaryIO]) -> None:
    """Spill what may be a layer; told by its digest, because engines name and compress the files of an export differently."""
    if not (path.endswith(b"/layer.tar") or path.startswith(b"/blobs/sha256/")):
        return
    file = cast("BinaryIO", tempfile.TemporaryFile(prefix="sconify-"))  # noqa: SIM115
    if _spill(content, file, wanted, kept):
        return
    file.seek(0)
    tar = uncompressed(file)
    if tar is not file and path.startswith(b"/blobs/"):
        plain = cast("BinaryIO", tempfile.TemporaryFile(prefix="sconify-"))  # noqa: SIM115
        if not _spill(cast("BinaryIO", Forward(tar)), plain, wanted, kept):
            plain.close()
    file.close()


def _spill(content: BinaryIO, file: BinaryIO, wanted: set[Sha256], kept: dict[Sha256, BinaryIO]) -> bool:
    hasher = hashlib.sha256()
    while data := content.read(CHUNK):
        hasher.update(data)
        file.write(data)
    file.flush()
    digest = Sha256("sha256:" + hasher.hexdigest())
    if digest in wanted and digest not in kept:
        kept[digest] = file
        return True
    return False


def _layer(digest: Sha256, file: BinaryIO) -> Layer:
    return Layer(diff_id=digest, size=file.seek(0, io.SEEK_END), path=Path(f"/proc/self/fd/{file.fileno()}"))


class _Chunks(io.RawIOBase):
    """The SDK's iterator of byte strings as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, and none only at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        data = bytes(self._rest if size < 0 else self._rest[:size])
        self._rest = self._rest[len(data) :]
        return data
