"""Where a dynamic loader looks for a library: glibc's rules (ld.so(8), ldconfig(8)) and musl's (ldso/dynlink.c).

Read from the image's files; nothing of the image is run. glibc-hwcaps directories are not followed: which of them counts
depends on the machine that the image will run on.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.resolve import FileView, find_path

MAX_CONF = 1 << 16
MAX_CONF_FILES = 256
_LD_SO_CONF = b"/etc/ld.so.conf"
_MUSL_DEFAULT = (b"/lib", b"/usr/local/lib", b"/usr/lib")
# "lib" and one of these names, up to its dot, is musl's own loader, whatever follows.
_MUSL_OWN = (b"libc.", b"libpthread.", b"librt.", b"libm.", b"libdl.", b"libutil.", b"libxnet.")


class Loader(Struct, frozen=True, kw_only=True):
    """The rules of one image: which C library's loader, for which machine, and its system directories in order."""

    musl: bool
    machine: str
    system: tuple[bytes, ...]

    def expand(self, paths: bytes, origin: bytes) -> Iterator[bytes]:
        """Directories of an RPATH, RUNPATH or LD_LIBRARY_PATH, absolute ones only: an empty one means the working directory."""
        for element in paths.replace(b";", b":").split(b":"):
            for candidate in self.substitute(element, origin):
                if candidate.startswith(b"/"):
                    yield candidate

    def substitute(self, text: bytes, origin: bytes) -> Iterable[bytes]:
        """Replace $ORIGIN, $LIB and $PLATFORM. What $LIB stands for is compiled into the loader: every usual value is tried."""
        text = text.replace(b"$ORIGIN", origin).replace(b"${ORIGIN}", origin)
        text = text.replace(b"$PLATFORM", self.machine.encode()).replace(b"${PLATFORM}", self.machine.encode())
        if b"$LIB" not in text and b"${LIB}" not in text:
            return (text,)
        values = (b"lib/" + self.machine.encode() + b"-linux-gnu", b"lib64", b"lib")
        return tuple(text.replace(b"${LIB}", value).replace(b"$LIB", value) for value in values)

    def is_own(self, name: bytes) -> bool:
        """Whether the loader answers for this library itself, without looking for a file."""
        return self.musl and name.startswith(_MUSL_OWN)


def loader_of(view: FileView, interpreter: bytes, machine: str) -> Loader:
    """Read the system directories from the image."""
    musl = posixpath.basename(interpreter).startswith(b"ld-musl-")
    system = _musl_directories(view, interpreter) if musl else _glibc_directories(view, machine)
    return Loader(musl=musl, machine=machine, system=tuple(dict.fromkeys(system)))


def _glibc_directories(view: FileView, machine: str) -> Iterator[bytes]:
    yield from _conf_directories(view)
    multiarch = machine.encode() + b"-linux-gnu"
    for directory in (b"lib/" + multiarch, b"lib64", b"lib"):
        yield b"/" + directory
        yield b"/usr/" + directory


def _musl_directories(view: FileView, interpreter: bytes) -> tuple[bytes, ...]:
    """`/lib/ld-musl-x86_64.so.1` reads `/etc/ld-musl-x86_64.path`; a missing file means the defaults, an empty one nothing."""
    architecture = posixpath.basename(interpreter).removeprefix(b"ld-musl-").split(b".", 1)[0]
    content = _read(view, b"/etc/ld-musl-" + architecture + b".path")
    if content is None:
        return _MUSL_DEFAULT
    return tuple(part for part in content.replace(b"\n", b":").split(b":") if part.startswith(b"/"))


def _conf_directories(view: FileView) -> list[bytes]:
    """ld.so.conf and what it includes, in order."""
    directories: list[bytes] = []
    pending, seen = [_LD_SO_CONF], set[bytes]()
    while pending and len(seen) < MAX_CONF_FILES:
        path = pending.pop(0)
        if path in seen:
            continue
        seen.add(path)
        included: list[bytes] = []
        for line in (_read(view, path) or b"").splitlines():
            text = line.split(b"#", 1)[0].strip()
            if text.split(maxsplit=1)[:1] == [b"include"]:
                for pattern in text.split()[1:]:
                    included += _glob(view, posixpath.join(posixpath.dirname(path), pattern))
            elif text.startswith(b"/"):
                directories.append(text.split(b"=", 1)[0].strip())
        pending = included + pending
    return directories


def _glob(view: FileView, pattern: bytes) -> list[bytes]:
    """Files whose last component matches; that is where every distribution has its wildcard."""
    directory, name = posixpath.split(pattern)
    found = find_path(view, directory)
    if found is None or found.entry.kind is not Kind.DIR:
        return []
    return sorted(posixpath.join(directory, entry) for entry in view.listdir(found.path) if fnmatchcase(entry, name))


def _read(view: FileView, path: bytes) -> bytes | None:
    """Return a small file's content; None where there is none."""
    found = find_path(view, path)
    if found is None or found.entry.kind is not Kind.FILE:
        return None
    if found.entry.size > MAX_CONF:
        raise UsageError(
            f"{path.decode(errors='backslashreplace')} in the image has {found.entry.size} bytes", hint="repair it"
        )
    return view.read(found.path, limit=MAX_CONF)
