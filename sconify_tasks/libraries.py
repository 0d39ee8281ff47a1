"""The shared-object closure of a program: what its loader will map, found without running anything of the image.

A library that a shared object loaded later (`dlopen`) lacks is reported, as an image may carry plug-ins that it never
loads; one that the program itself lacks is an error, as the native image would not start either.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from sconify_tasks.elf import ElfFacts, ForeignElfError, inspect
from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.resolve import FileView, Resolved, find_path, resolve_path
from sconify_tasks.library_paths import Loader, loader_of

MAX_OBJECTS = 4096
_INTERPRETER = "the interpreter that it names"
LARGEST = 2 << 30
"""Bytes of a library that is looked into."""


class Dependent(Struct, frozen=True, kw_only=True):
    """An object that needs others: a program, a library, a plug-in. `path` is where the loader would find it."""

    path: bytes
    needed: tuple[bytes, ...]
    rpath: bytes = b""
    runpath: bytes = b""


class Library(Struct, frozen=True, kw_only=True):
    """A shared object of the closure.

    `name` is as first asked for, `path` where the loader finds it (`$ORIGIN/../lib` leaves its `..` in it), `resolved` where
    it lies with every symlink followed, `links` the symlinks passed. `needed_by` are paths. `found_by` says in words which
    rule led there first. `is_loader` marks the program's interpreter.
    """

    name: bytes
    path: bytes
    resolved: bytes
    entry: Entry
    links: tuple[Entry, ...]
    needed_by: tuple[bytes, ...]
    found_by: str
    is_loader: bool


class Missing(Struct, frozen=True, kw_only=True):
    """A library that a plug-in needs and that can't be loaded."""

    name: bytes
    needed_by: bytes
    reason: str


class Closure(Struct, frozen=True, kw_only=True):
    """Libraries sorted by path, and what plug-ins lack."""

    libraries: tuple[Library, ...]
    missing: tuple[Missing, ...]


def closure(
    view: FileView,
    program: bytes,
    *,
    facts: ElfFacts | None = None,
    dlopened: Iterable[Dependent] = (),
    ld_library_path: bytes = b"",
) -> Closure:
    """Find what `program` (a path in the image) and then every object of `dlopened` needs, breadth first as loaders do.

    Raises UsageError for a program that is none, and for a library that it needs and that is not in the image.
    """
    found = resolve_path(view, program)
    if facts is None:
        facts = inspect(view.read(found.path, limit=LARGEST), name=_text(program))
    if facts.static:
        return Closure(libraries=(), missing=())
    search = _Search(view=view, loader=loader_of(view, facts.interpreter, facts.machine), ld_library_path=ld_library_path)
    main = Dependent(path=found.path, needed=facts.needed, rpath=facts.rpath, runpath=facts.runpath)
    if facts.interpreter:
        search.add_interpreter(facts.interpreter, main)
    search.run(_Loaded(dependent=main, parent=None))
    if search.missing:
        lost = search.missing[0]
        raise UsageError(
            f"{_text(lost.needed_by)} needs the library {_text(lost.name)}: {lost.reason}",
            hint="set LD_LIBRARY_PATH with --env if it lies in a directory of its own, or install it in the native image",
        )
    at_start = search.loaded
    for plugin in dlopened:
        # Not what other plug-ins brought: this one may be loaded alone, or by another process.
        search.loaded = dict(at_start)
        search.run(_Loaded(dependent=plugin, parent=_Loaded(dependent=main, parent=None)))
    libraries = (_library(found) for found in search.objects.values())
    return Closure(libraries=tuple(sorted(libraries, key=lambda library: library.path)), missing=tuple(search.missing))


class _Loaded(Struct, frozen=True, kw_only=True):
    """An object and the one that asked for it: DT_RPATH is inherited along this chain."""

    dependent: Dependent
    parent: _Loaded | None


@dataclass(slots=True, kw_only=True)
class _Found:
    name: bytes
    path: bytes
    resolved: Resolved
    facts: ElfFacts
    found_by: str
    is_loader: bool
    needed_by: dict[bytes, None]


@dataclass(slots=True, kw_only=True)
class _Search:
    view: FileView
    loader: Loader
    ld_library_path: bytes
    # In one process, by requested name, by soname and by file: a loader maps an object once under all of them.
    loaded: dict[bytes, _Found] = field(default_factory=dict)
    # In every process, by file.
    objects: dict[bytes, _Found] = field(default_factory=dict)
    found: dict[bytes, Resolved | None] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    facts: dict[bytes, ElfFacts | None] = field(default_factory=dict)

    def add_interpreter(self, path: bytes, main: Dependent) -> None:
        try:
            resolved = resolve_path(self.view, path)
        except UsageError as error:
            raise UsageError(
                f"{_text(main.path)} needs the loader {_text(path)}: {error.message}",
                hint="install the C library that it is made for in the native image",
            ) from error
        facts = self._inspect(resolved.path)
        if facts is None or facts.machine != self.loader.machine:
            raise UsageError(
                f"{_text(path)}, the loader of {_text(main.path)}, is for another machine", hint="repair the image"
            )
        self._remember(posixpath.basename(path), path, resolved, facts, by=main.path, rule=_INTERPRETER)

    def run(self, root: _Loaded) -> None:
        """Load what `root` needs, and what that needs."""
        queue = deque([root])
        while queue:
            loaded = queue.popleft()
            for name in loaded.dependent.needed:
                found = self._load(name, loaded)
                if found is not None:
                    facts = found.facts
                    dependent = Dependent(path=found.path, needed=facts.needed, rpath=facts.rpath, runpath=facts.runpath)
                    queue.append(_Loaded(dependent=dependent, parent=loaded))
            if len(self.facts) > MAX_OBJECTS:
                raise UsageError(
                    f"{_text(root.dependent.path)} needs more than {MAX_OBJECTS} libraries", hint="repair the image"
                )

    def _load(self, name: bytes, loaded: _Loaded) -> _Found | None:
        """Return the object where it is a new one."""
        by = loaded.dependent.path
        known = self.loaded.get(name)
        if known is None and self.loader.is_own(name):
            known = next((found for found in self.loaded.values() if found.is_loader), None)
        if known is not None:
            known.needed_by[by] = None
            return None
        try:
            for path, rule in self._candidates(name, loaded):
                resolved = self._find(path)
                if resolved is None or resolved.entry.kind is not Kind.FILE:
                    continue
                facts = self._inspect(resolved.path)
                # A library of another class or machine is passed over, as the loader does.
                if facts is not None and facts.machine == self.loader.machine:
                    return self._remember(name, path, resolved, facts, by=by, rule=rule)
            reason = "it is not in the image"
        except UsageError as error:
            reason = error.message
        self.missing.append(Missing(name=name, needed_by=by, reason=reason))
        return None

    def _remember(
        self, name: bytes, path: bytes, resolved: Resolved, facts: ElfFacts, *, by: bytes, rule: str
    ) -> _Found | None:
        is_known = resolved.path in self.loaded
        found = self.objects.setdefault(
            resolved.path,
            _Found(
                name=name,
                path=path,
                resolved=resolved,
                facts=facts,
                found_by=rule,
                is_loader=rule == _INTERPRETER,
                needed_by={},
            ),
        )
        found.needed_by[by] = None
        self.loaded[name] = self.loaded[resolved.path] = found
        if facts.soname:
            self.loaded.setdefault(facts.soname, found)
        return None if is_known else found

    def _find(self, path: bytes) -> Resolved | None:
        if path not in self.found:
            self.found[path] = find_path(self.view, path)
        return self.found[path]

    def _inspect(self, path: bytes) -> ElfFacts | None:
        if path not in self.facts:
            try:
                self.facts[path] = inspect(self.view.read(path, limit=LARGEST), name=_text(path))
            except ForeignElfError:
                self.facts[path] = None
        return self.facts[path]

    def _candidates(self, name: bytes, loaded: _Loaded) -> Iterator[tuple[bytes, str]]:
        """Yield the paths that the loader would try, in order, and which rule each comes from."""
        if b"/" in name:
            for path in self.loader.substitute(name, _origin(loaded)):
                if path.startswith(b"/"):
                    yield path, "its path"
            return
        seen: set[bytes] = set()
        for directory, rule in self._directories(loaded):
            if directory not in seen:
                seen.add(directory)
                yield posixpath.join(directory, name), rule

    def _directories(self, loaded: _Loaded) -> Iterator[tuple[bytes, str]]:
        expand = self.loader.expand
        library_path = [(path, "LD_LIBRARY_PATH") for path in expand(self.ld_library_path, _origin(_root(loaded)))]
        if self.loader.musl:
            yield from library_path
            for link in _chain(loaded):
                paths = link.dependent.runpath or link.dependent.rpath
                yield from ((path, _rule("RUNPATH", link)) for path in expand(paths, _origin(link)))
        else:
            if not loaded.dependent.runpath:
                for link in _chain(loaded):
                    if not link.dependent.runpath:
                        yield from ((path, _rule("RPATH", link)) for path in expand(link.dependent.rpath, _origin(link)))
            yield from library_path
            yield from ((path, _rule("RUNPATH", loaded)) for path in expand(loaded.dependent.runpath, _origin(loaded)))
        yield from ((path, "the system's directories") for path in self.loader.system)


def _rule(tag: str, loaded: _Loaded) -> str:
    return f"the {tag} of {_text(loaded.dependent.path)}"


def _chain(loaded: _Loaded | None) -> Iterator[_Loaded]:
    while loaded is not None:
        yield loaded
        loaded = loaded.parent


def _root(loaded: _Loaded) -> _Loaded:
    *_, root = _chain(loaded)
    return root


def _origin(loaded: _Loaded) -> bytes:
    return posixpath.dirname(loaded.dependent.path)


def _library(found: _Found) -> Library:
    return Library(
        name=found.name,
        path=found.path,
        resolved=found.resolved.path,
        entry=found.resolved.entry,
        links=found.resolved.links,
        needed_by=tuple(found.needed_by),
        found_by=found.found_by,
        is_loader=found.is_loader,
    )


def _text(path: bytes) -> str:
    return path[:300].decode(errors="backslashreplace")
