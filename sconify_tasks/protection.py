"""Which path belongs to which class: options in, regions out (docs/overlaps.md has the table of all pairs).

The longest prefix decides. One path named for two classes is an error. Paths are those of the image, symlinks resolved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.regions import Protection, Region, Regions, prefixes

# Kernel file systems, and the files that the engine writes into every container at its start.
NEVER_PROTECTED = (b"/dev", b"/etc/hostname", b"/etc/hosts", b"/etc/resolv.conf", b"/proc", b"/sys")


def region_table(
    *,
    encrypted: Iterable[bytes],
    plain: Iterable[bytes],
    host: Iterable[bytes],
    authenticated: Iterable[bytes],
) -> Regions:
    """Return the regions, with one for `/`.

    `authenticated` is what the tool protects by itself: a user's word on the same path goes before it.
    Raises UsageError for a path in two classes, and for one that can't be protected.
    """
    classes: dict[bytes, Protection] = {}
    wanted = set(encrypted)
    for path in sorted(wanted):
        system = _system_path(path)
        if system is not None:
            raise UsageError(f"--dir={_text(path)} can't be protected: {_text(system)} is the kernel's or the engine's own")
    for option, paths in (("--plain or --plain-file", set(plain)), ("--host-path", set(host))):
        for path in sorted(paths & wanted):
            raise UsageError(
                f"{_text(path)} is named by --dir and by {option}", hint="one path has one class: drop one of them"
            )
        classes |= dict.fromkeys(paths, Protection.NONE)
    classes |= dict.fromkeys(wanted, Protection.ENCRYPTED)
    chosen = dict(classes)
    for path in authenticated:
        # What the user had encrypted stays so, also where the tool alone would only authenticate.
        outer = next((chosen[prefix] for prefix in prefixes(path) if prefix in chosen), None)
        if outer is not Protection.ENCRYPTED and path not in chosen:
            classes[path] = Protection.AUTHENTICATED
    for system in NEVER_PROTECTED:
        if any(prefix in classes and classes[prefix] for prefix in prefixes(system)):
            classes[system] = Protection.NONE
    classes.setdefault(b"/", Protection.NONE)
    return Regions.of(Region(path=path, protection=protection) for path, protection in classes.items())


def _system_path(path: bytes) -> bytes | None:
    return next((prefix for prefix in prefixes(path) if prefix in NEVER_PROTECTED), None)


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")


def regions_from_facts(facts: object) -> Regions:
    """Take the regions from where a step recorded them, as pairs of path and class."""
    assert isinstance(facts, Sequence)
    return Regions.of(Region(path=str(path).encode(), protection=Protection(protection)) for path, protection in facts)
