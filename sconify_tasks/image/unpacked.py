"""What an image of an engine holds, read where the engine of this machine keeps its layers unpacked (overlay2).

An archive of the engine's costs it a process and a copy of every byte. Whoever may read its folders needs neither: root in
the machine's own user namespace, of an engine whose files have the owners that they show. Everybody else gets `None` from
`find_folders`, and asks the engine.

The folders are the lower directories of an overlay file system (Documentation/filesystems/overlayfs.rst): a character
device 0/0 deletes a name of the layers below, `trusted.overlay.opaque` a directory's content. Nobody writes to them; what is
read is held against the stat that it was found with all the same.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, BinaryIO, cast

from sconify_tasks.errors import SconifyError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.folder import DIRECTORY, KINDS, Seen, SeenFile, Xattrs, linked, lstat
from sconify_tasks.image.manifest import mapping
from sconify_tasks.image.paths import below, check_path, join, outermost, shown, split
from sconify_tasks.image.source import not_there, readable

# What is named by anybody must not be any folder of this machine: layers have names that were drawn at random.
_LAYER = re.compile(r"/(?:[^/\0]+/)*overlay2/[0-9a-z]{25,64}/diff")
_CAPABILITY = "security.capability"
_OVERLAY = "trusted.overlay."
_OPAQUE = _OVERLAY + "opaque"
# They say that a directory or a content lies elsewhere, or deletes in another way: engines switch these off.
_ELSEWHERE = frozenset({_OVERLAY + "redirect", _OVERLAY + "metacopy", _OVERLAY + "whiteout"})
# An engine makes them in every container: so an image has them wherever its files come from.
_ALWAYS = {path: Entry(path=path, kind=Kind.DIR, mode=0o755) for path in (b"/dev", b"/etc")}
_DAC_READ_SEARCH, _SYS_ADMIN = 1 << 2, 1 << 21  # capability.h
_FIRST_USER_NAMESPACE = "user:[4026531837]"  # PROC_USER_INIT_INO


def find_folders(inspected: Mapping[str, Any], *, layers: int) -> tuple[Path, ...] | None:
    """The folders of an image's layers, the lowest first, from what inspect says; None where this process can't read them."""
    driver = mapping(inspected.get("GraphDriver"))
    data = mapping(driver.get("Data"))
    upper = data.get("UpperDir")
    if driver.get("Name") != "overlay2" or not isinstance(upper, str) or not _sees_everything():
        return None
    lower = str(data.get("LowerDir") or "")
    folders = tuple(Path(name) for name in [*reversed(lower.split(":") if lower else []), upper])
    return folders if len(folders) == layers and all(map(_is_folder, folders)) else None


class LayerFolders:
    """Unpacked layers as one image. Paths are checked as those of a `SourceImage` are; `find` also says which layer has one."""

    def __init__(self, folders: Sequence[Path], *, name: str) -> None:
        self._name = name
        self._roots: list[int] = []
        try:
            for folder in folders:
                self._roots.append(os.open(folder, DIRECTORY))
        except OSError as error:
            self.close()
            msg = f"{name}: {error.filename}: {error.strerror}"
            raise SconifyError(msg, hint="build again: the image may have been removed") from error
        # Of each directory the layers that have a part in it, the uppermost first.
        self._parts: dict[bytes, tuple[int, ...]] = {}

    def find(self, path: bytes) -> tuple[Seen, int] | None:
        """One path, and the number of the layer that has it, 0 the lowest."""
        check_path(path)
        name = _relative(path)
        for number in self._parts_of(split(path)[0]):
            found = lstat(self._roots[number], name)
            if found is not None:
                return None if _is_hidden(found) else (Seen(path, self._roots[number], name, found), number)
        return None

    def lstat(self, path: bytes) -> Entry | None:
        """Metadata of one path."""
        found = self.find(path)
        return self._entry(found[0]) if found else _ALWAYS.get(path)

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        check_path(path)
        found = {name for name, _, _ in self._children(path)}
        return sorted(found | {name for parent, name in map(split, _ALWAYS) if parent == path})

    def walk(self, roots: Iterable[bytes]) -> AbstractContextManager[Iterator[tuple[Entry, BinaryIO | None]]]:
        """Each root and everything below it, parents first, siblings sorted."""
        return closing(self._contents(outermost(list(roots))))

    def read(self, path: bytes, *, limit: int) -> bytes:
        """Content of a regular file."""
        found = self.find(path)
        readable(self._entry(found[0]) if found else None, path, limit=limit, name=self._name)
        assert found is not None
        with SeenFile(found[0]) as file:
            content = file.read(limit)
            file.finish()
            return content

    def close(self) -> None:
        """Close the folders' descriptors."""
        for root in self._roots:
            os.close(root)
        self._roots = []

    def _contents(self, roots: list[bytes]) -> Generator[tuple[Entry, BinaryIO | None]]:
        inodes: dict[tuple[int, int], bytes] = {}
        for root in roots:
            found = self.find(root)
            if found is None and root not in _ALWAYS:
                raise not_there(root, self._name)
            for each in self._descend(found[0]) if found else ():
                seen = linked(each, inodes)
                if seen.kind is Kind.FILE:
                    with SeenFile(seen) as file:
                        yield self._entry(seen), cast("BinaryIO", file)
                        file.finish()
                else:
                    yield self._entry(seen), None
            yield from ((entry, None) for path, entry in _ALWAYS.items() if below(path, root) and self.find(path) is None)

    def _descend(self, start: Seen) -> Iterator[Seen]:
        pending = [start]
        while pending:
            seen = pending.pop()
            yield seen
            if seen.kind is Kind.DIR:
                children = sorted(self._children(seen.path), reverse=True)
                pending += (
                    Seen(child, self._roots[number], _relative(child), found)
                    for child, number, found in ((join(seen.path, name), number, found) for name, number, found in children)
                )

    def _children(self, path: bytes) -> list[tuple[bytes, int, os.stat_result]]:
        """What a directory holds: names, the uppermost layer that has each, and its stat there."""
        found: dict[bytes, tuple[int, os.stat_result]] = {}
        for number in self._parts_of(path):
            directory = os.open(_relative(path), DIRECTORY, dir_fd=self._roots[number])
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        if name not in found:
                            found[name] = (number, entry.stat(follow_symlinks=False))
            finally:
                os.close(directory)
        return [(name, number, status) for name, (number, status) in found.items() if not _is_hidden(status)]

    def _parts_of(self, directory: bytes) -> tuple[int, ...]:
        known = self._parts.get(directory)
        if known is None:
            above = self._parts_of(split(directory)[0]) if directory != b"/" else tuple(reversed(range(len(self._roots))))
            known = self._parts[directory] = tuple(self._find_parts(directory, above))
        return known

    def _find_parts(self, directory: bytes, above: tuple[int, ...]) -> Iterator[int]:
        name = _relative(directory)
        for number in above:
            found = lstat(self._roots[number], name)
            if found is None:
                continue
            if not stat.S_ISDIR(found.st_mode):
                return  # it hides what lies below, and so does a whiteout
            yield number
            if self._attributes(Seen(directory, self._roots[number], name, found)).get(_OPAQUE):
                return

    def _entry(self, seen: Seen) -> Entry:
        attributes = self._attributes(seen)
        # As in the engine's archives, which bring no other ones.
        capability: Xattrs = ((_CAPABILITY.encode(), attributes[_CAPABILITY]),) if _CAPABILITY in attributes else ()
        return seen.entry(xattrs=capability)

    def _attributes(self, seen: Seen) -> dict[str, bytes]:
        """The attributes that mean something here; SconifyError for one that says the rest is to be found elsewhere."""
        path = b"/proc/self/fd/%d/%b" % (seen.parent, seen.name)
        names = os.listxattr(path, follow_symlinks=False)
        if not names:
            return {}
        found = {name: os.getxattr(path, name, follow_symlinks=False) for name in names if name in (_OPAQUE, _CAPABILITY)}
        if not _ELSEWHERE.isdisjoint(names) or found.get(_OPAQUE, b"y") != b"y":
            msg = f"{self._name}: {shown(seen.path)} lies in a layer of the engine's in a form that is not read here"
            raise SconifyError(msg, hint="save the image, and name it as docker-archive:FILE")
        return found


def _relative(path: bytes) -> bytes:
    return path[1:] or b"."


def _is_hidden(found: os.stat_result) -> bool:
    """Whether an image does not have it: a whiteout, or a socket."""
    return (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0) or stat.S_IFMT(found.st_mode) not in KINDS


def _is_folder(path: Path) -> bool:
    return _LAYER.fullmatch(str(path)) is not None and path.is_dir() and not path.is_symlink()


def _sees_everything() -> bool:
    """Whether any file can be read here, with its true owner and the attributes that overlay file systems keep."""
    try:
        if os.readlink("/proc/self/ns/user") != _FIRST_USER_NAMESPACE:  # noqa: PTH115
            return False
        status = Path("/proc/self/status").read_bytes()
        capabilities = int(status.partition(b"CapEff:")[2].split(None, 1)[0], 16)
        parameters = Path("/sys/module/overlay/parameters")
        elsewhere = any((parameters / name).read_bytes().strip() != b"N" for name in ("redirect_dir", "metacopy"))
    except (OSError, ValueError, IndexError):
        return False
    wanted = _DAC_READ_SEARCH | _SYS_ADMIN
    return capabilities & wanted == wanted and not elsewhere
