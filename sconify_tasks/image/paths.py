"""What a path in an image may be: bytes, absolute, normalised (docs/formats.md, conventions)."""

from __future__ import annotations

from sconify_tasks.errors import UsageError

WHITEOUT = b".wh."
_TOUCHED = frozenset({b"/", b"/dev", b"/etc"})
_SECOND = 1_000_000_000
_LONGEST = 4096
_LONGEST_NAME = 255


def check_path(path: bytes) -> None:
    """Raise UsageError for a path that is not absolute and normalised, or that a reader would take for a whiteout."""
    if path == b"/":
        return
    if not path.startswith(b"/") or len(path) > _LONGEST or b"\0" in path:
        _refuse(path)
    # Searches instead of a loop over names: this runs for every entry of every layer.
    closed = path + b"/"
    if b"//" in closed or b"/./" in closed or b"/../" in closed:
        _refuse(path)
    if len(path) > _LONGEST_NAME and max(map(len, path.split(b"/"))) > _LONGEST_NAME:
        _refuse(path)
    if b"/" + WHITEOUT in path:
        msg = f"{shown(path)}: names that start with .wh. mean a deletion in a layer"
        raise UsageError(msg, hint="rename the file in the native image")


def settled_mtime(path: bytes, nanoseconds: int) -> int:
    """Return the part of an mtime in which all sources of an image agree.

    Engines cut off the fraction in their archives, and touch some directories when they make a container.
    """
    return 0 if path in _TOUCHED else nanoseconds - nanoseconds % _SECOND


def split(path: bytes) -> tuple[bytes, bytes]:
    """Parent and name. The parent of `/x` is `/`; `/` has no name."""
    parent, _, name = path.rpartition(b"/")
    return parent or b"/", name


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of `name` in the directory `parent`."""
    return b"/" + name if parent == b"/" else parent + b"/" + name


def below(path: bytes, root: bytes) -> bool:
    """Whether `path` is `root` or lies under it."""
    return root in (path, b"/") or path.startswith(root + b"/")


def outermost(roots: list[bytes]) -> list[bytes]:
    """Return the roots without those that lie under another root, sorted."""
    kept: list[bytes] = []
    for root in sorted(set(roots), key=lambda path: path.split(b"/")):
        if not kept or not below(root, kept[-1]):  # sorted by components, what lies under a root follows it directly
            kept.append(root)
    return kept


def shown(value: bytes) -> str:
    """For messages: text where it is text, escapes where it is not, and never a control character or a megabyte."""
    text = value[:200].decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _refuse(path: bytes) -> None:
    msg = f"not a path inside an image: {shown(path)}"
    raise UsageError(msg, hint="use an absolute path without '.', '..', empty or overlong names")
