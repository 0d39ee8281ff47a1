"""Random stacks of layers, as hostile to a merged view as the format allows; many small cases beside each other in one image."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

NAMES = ("a", "b", "c", "d" * 120)


@dataclass(frozen=True)
class Thing:
    """A tar member: its path below the case, what it is, and content or target."""

    path: str
    kind: bytes
    value: str = ""
    mode: int = 0o644


def random_layer(rng: random.Random, *, symlinks: bool) -> list[Thing]:
    """Members in no order at all: parents left out, paths repeated, deletions before and after what they stand beside."""
    things: list[Thing] = []
    for _ in range(rng.randrange(1, 7)):
        path = "/".join(rng.choice(NAMES) for _ in range(rng.randrange(1, 4)))
        parent, _, name = path.rpartition("/")
        files = {thing.path: thing for thing in things if thing.kind == tarfile.REGTYPE and ".wh." not in thing.path}
        match rng.randrange(10):
            case 0 | 1 | 2:
                things.append(Thing(path, tarfile.REGTYPE, f"{rng.randrange(1000)}", rng.choice((0o644, 0o755, 0o4711))))
            case 3 | 4:
                things.append(Thing(path, tarfile.DIRTYPE, mode=rng.choice((0o755, 0o700, 0o1777))))
            case 5 if symlinks:
                things.append(Thing(path, tarfile.SYMTYPE, rng.choice(("a", "../b", "/c", "none", "."))))
            case 6 if files:
                # Whether a link's own header changes the inode, engines and umoci disagree: builders write it twice the same.
                target = files[rng.choice(sorted(files))]
                things.append(Thing(path, tarfile.LNKTYPE, target.path, target.mode))
            case 7:
                things.append(Thing(path, tarfile.FIFOTYPE, mode=0o600))
            case 8:
                things.append(Thing(f"{path}/.wh..wh..opq", tarfile.REGTYPE))
            case _:
                things.append(Thing(f"{parent}/.wh.{name}".lstrip("/"), tarfile.REGTYPE))
    return things


def with_parents(things: list[Thing]) -> list[Thing]:
    """Put each parent directory before what first needs it, as builders do."""
    complete: list[Thing] = []
    there: set[str] = set()
    for thing in things:
        parts = thing.path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in there:
                complete.append(Thing(parent, tarfile.DIRTYPE, mode=0o755))
                there.add(parent)
        there.add(thing.path)
        complete.append(thing)
    return complete


def engines_take(things: list[Thing]) -> bool:
    """Whether no engine refuses the layer: no path twice, none below a file, none that the same layer deletes."""
    paths = [thing.path for thing in things]
    folders = {thing.path for thing in things if thing.kind == tarfile.DIRTYPE}
    above = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    deleted = {path for path in paths if "/".join([*path.split("/")[:-1], ".wh." + path.split("/")[-1]]) in paths}
    return len(set(paths)) == len(paths) and above <= folders and not deleted


def layer_tar(cases: Iterable[tuple[str, list[Thing]]], *, style: int) -> bytes:
    """One layer of many cases, each below its own folder; `style` varies how names are written and which format."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=(tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[style % 2]) as archive:
        for case, things in cases:
            for thing in things:
                prefix = ("./", "", "/")[style % 3]
                info = tarfile.TarInfo(f"{prefix}{case}/{thing.path}")
                info.type, info.mode, info.mtime = thing.kind, thing.mode, 1_000_000_000
                data = thing.value.encode() if thing.kind == tarfile.REGTYPE else b""
                info.size = len(data)
                if thing.kind == tarfile.SYMTYPE:
                    info.linkname = thing.value
                if thing.kind == tarfile.LNKTYPE:
                    info.linkname = f"{prefix}{case}/{thing.value}"
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
