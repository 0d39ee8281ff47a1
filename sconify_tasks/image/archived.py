"""What an image of an engine holds, by the archives of a container that is created and never started.

The container is labelled with its owner, so that the next run removes what a killed one left. What the engine itself
puts into every container (`/.dockerenv`, `/etc/hosts`, ...) is no part of the image and is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from itertools import takewhile
from threading import RLock
from typing import TYPE_CHECKING, BinaryIO, cast

from msgspec import Struct
from msgspec.structs import replace

from sconify_tasks.errors import SconifyError, UsageError
from sconify_tasks.image.engine import api_of, engine_errors
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.held import Held, Passed
from sconify_tasks.image.paths import below, check_path, outermost, settled_mtime, shown, split
from sconify_tasks.image.source import not_there, readable
from sconify_tasks.image.streams import Chunks
from sconify_tasks.image.tar_read import Member, members
from sconify_tasks.image.temporary import engine_time, new_container, remove_container, sweep

if TYPE_CHECKING:
    from docker import DockerClient

_TRANSFER = 2 << 20  # the SDK's own default, and the fastest
# A look-up costs some 60 ms of starting a process, in which the engine streams as many bytes: after enough look-ups, one
# stream of the whole image, of which only the headers are kept, is cheaper.
_BYTES_PER_LOOKUP = 12 << 20
_LOOKUPS = 24
# More roots than these are taken from one stream of the directory that they have in common.
_ROOTS = 4
# A loader asks for many libraries in few directories: where one was found, the next question is answered with the whole
# directory, if it has no more bytes than this. Where many were missed, with as much as the misses cost.
_LIBRARIES = 64 << 20
_MISSED = 16 << 20
_MISSES = 4
# What a dozen look-ups cost, an archive brings of a directory in the root: so that comes first.
_FIRST, _FIRST_ENTRIES = 96 << 20, 4000
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


class _Container(Struct, frozen=True, kw_only=True):
    id: str
    created: int  # by the engine's clock, in nanoseconds


class ContainerArchives:
    """The files of one image. The container is made when something is read; `size` is the image's, in bytes."""

    def __init__(self, client: Callable[[], DockerClient], image: str, *, name: str, size: int) -> None:
        self._client, self._image, self._name = client, image, name
        self._lookups = _LOOKUPS + size // _BYTES_PER_LOOKUP
        self._lock = RLock()
        self._pool = RLock()
        self._made: list[str] = []
        self._idle: list[_Container] = []
        self._known: dict[bytes, Entry | None] = {}
        self._asked = 0
        self._held = Held()
        self._libraries: set[bytes] = set()
        self._missed: Counter[bytes] = Counter()
        self._tried: dict[bytes, int] = {}
        self._whole: dict[bytes, Entry] | None = None

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of one path; remembered, and after some questions all of them are fetched at once."""
        check_path(path)
        with self._lock:
            if path in self._known:
                return self._known[path]
            # The engine follows symlinks in parents: so each parent is looked at first.
            directory = split(path)[0]
            parent = None if directory == b"/" else self.lstat(directory)
            inside = directory == b"/" or (parent is not None and parent.kind is Kind.DIR)
            if inside and path not in self._known:
                self._hold_if_worth_it(directory, path)
            if path not in self._known:
                self._known[path] = self._look_up(path) if inside else None
            return self._known[path]

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        with self._lock:
            found = self.lstat(path)
            if found is None or found.kind is not Kind.DIR:
                return []
            self._hold(path, _LIBRARIES)
            archive = self._held.archive(path)
            everything = (entry.path for entry in self._held.entries(archive)) if archive else self._everything()
            return sorted(name for parent, name in map(split, everything) if parent == path and name)

    def walk(self, roots: Iterable[bytes]) -> AbstractContextManager[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, in the order of the engine's archive."""
        return closing(self._walk(outermost(list(roots))))

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file."""
        readable(self.lstat(path), path, limit=limit, name=self._name)
        with self._file(path) as content:
            return content.read()

    def close(self) -> None:
        """Remove the temporary containers."""
        with self._lock:
            self._held.close()
        with self._pool:
            made, self._made, self._idle = self._made, [], []
        for container in made:
            with suppress(SconifyError):  # an engine that went away: the next run sweeps
                remove_container(self._client(), container)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    @contextmanager
    def _lent(self) -> Iterator[_Container]:
        """A container for one stream alone: the engine locks it until the archive is read to its end or hung up."""
        with self._pool:
            container = self._idle.pop() if self._idle else self._new()
        try:
            yield container
        finally:
            with self._pool:
                self._idle.append(container)

    def _new(self) -> _Container:
        with engine_errors(self._name):
            if not self._made:
                sweep(self._client())
            made = new_container(self._client(), self._image)
            self._made.append(made)
            return _Container(id=made, created=engine_time(self._client(), made))

    def _look_up(self, path: bytes) -> Entry | None:
        """Answer from what is known of the whole image or of a directory that is held; only then ask the engine."""
        if self._held.archive(path) is not None:
            return None
        return self._fetch(path) if self._whole is None else self._whole.get(path)

    def _fetch(self, path: bytes) -> Entry | None:
        """Take the first header of the path's archive: a HEAD request knows neither owner nor a symlink's own target."""
        if self._asked > self._lookups:
            return self._everything().get(path)
        with closing(self._archive(path)) as archive:
            entry, _ = next(archive, (None, None))
        if entry is None or entry.path != path:  # the engine's own directory, with something of the image below it
            self._missed[split(path)[0]] += 1
            return None
        self._asked += 1  # what is not there costs the engine little
        if b".so" in path:
            self._libraries.add(split(path)[0])
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
                raise not_there(root, self._name)
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
        if len(others) > _ROOTS:
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
        passed = Passed()
        try:
            with closing(self._archive(root)) as archive:
                for entry, content in archive:
                    if budget is not None and ((budget := budget - entry.size) < 0 or len(passed.entries) > _FIRST_ENTRIES):
                        return
                    found = _shared(entry, self.lstat(entry.hardlink)) if entry.hardlink else entry
                    kept = self._held.keep(found, content) if content is not None else None
                    passed.add(found, whole=content is None or kept is not None)
                    with self._lock:
                        self._known[entry.path] = replace(found, hardlink=b"")
                    yield found, content if kept is None else kept
            passed.end()
        finally:
            for directory, entries in passed.complete():
                self._held.complete(directory, entries)

    def _hold_if_worth_it(self, directory: bytes, path: bytes) -> None:
        if directory == b"/" != path:
            # One request for the directory, and for all in it where that is not too much.
            self._hold(path, _FIRST)
            return
        if b".so" in path and directory in self._libraries:
            self._hold(directory, _LIBRARIES)
        elif self._missed[directory] >= _MISSES:
            self._hold(directory, _MISSED)

    def _hold(self, directory: bytes, budget: int) -> None:
        """Try to hold all of a directory, and give up when it has more bytes than that."""
        if self._held.archive(directory) is None and self._tried.get(directory, 0) < budget:
            self._tried[directory] = budget
            for _ in self._members(directory, budget=budget):
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
                msg = f"{shown(path)} vanished from {self._name}"
                raise SconifyError(msg, hint="build again")

    def _archive(self, path: bytes) -> Generator[tuple[Entry, BinaryIO | None]]:
        """Yield the members of the engine's archive of `path`, with the paths they have in the image; none if it is missing."""
        from docker import errors

        asked = _textual(path)
        with self._lent() as container, engine_errors(f"{self._name}: {shown(path)}"):
            try:
                stream, _ = api_of(self._client()).get_archive(container.id, asked, _TRANSFER)
            except errors.NotFound:
                return
            with closing(stream):
                for item, content in members(cast("BinaryIO", Chunks(stream))):
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
