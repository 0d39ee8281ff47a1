"""One edit in a repository of many images: exactly what is stale runs, and what that costs beside ninja's rebuild of one edge.

A file of one image, an option of one image, the base that a team's images share, the file that the team includes. How many
steps of how many images run is asserted; seconds are not.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measuring import ROOT, Run, machine, megabytes, or_say_what_is_missing, table, timed
from ninja_graph import ninja
from repository import TEAM, Repository, built_repository, steps_that_ran, write_base

_SESSION = {"inspect", "policy", "resources", "upload"}
_LAYERS = {"image", "verify", "deliver", *_SESSION}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change, how many images it makes stale, the steps that run for each, and those that one of them runs for all."""

    change: Callable[[Repository], None]
    images: int
    steps: frozenset[str]
    once: frozenset[str] = frozenset()


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    time.sleep(0.05)  # older than the run that reads it, or the next one looks again


def _set(repository: Repository, line: str) -> None:
    """Another variable in the line of the first team's file that begins so."""
    path = repository.team(0) / "sconify.yaml"
    changed, times = re.subn(rf"^({line}.*env\+: \[)[^\]]*", rf"\1EDITED={_stamp()}", path.read_text(), flags=re.MULTILINE)
    assert times == 1
    _write(path, changed)


def _stamp() -> str:
    return str(time.time_ns())


def _change_base(repository: Repository) -> None:
    write_base(repository.team(0), _stamp().encode())
    time.sleep(0.05)


def edits(images: int) -> dict[str, Edit]:
    """All of them, in the first team."""
    team = min(TEAM, images)
    return {
        "a file of one image": Edit(
            change=lambda r: _write(r.native(0) / "app" / "secret", _stamp()),
            images=1,
            steps=frozenset({"binary", "files", "libraries", "encrypt", "manifest", *_LAYERS}),
        ),
        "an option of one image": Edit(
            change=lambda r: _set(r, "  image-0:"),
            images=1,
            steps=frozenset(_SESSION),
        ),
        f"the base of {team} images": Edit(
            change=_change_base,
            images=team,
            steps=frozenset({"manifest", *_LAYERS} - {"inspect", "policy"}),
            once=frozenset({"copy"}),  # all copy the same files
        ),
        f"the file that {team} images are in": Edit(
            change=lambda r: _set(r, "defaults:"),
            images=team,
            steps=frozenset(_SESSION),
        ),
    }


def measure(repository: Repository) -> None:
    """Make each edit and build."""
    idle = repository.doit()
    rows = [_row("nothing", idle, 0)]
    for name, edit in edits(repository.images).items():
        edit.change(repository)
        run = repository.doit()
        ran = steps_that_ran(run)
        images = {image for image, _ in ran}
        expected = edit.images * len(edit.steps) + len(edit.once)
        assert len(images) == edit.images, f"{name}: {len(images)} images"
        assert {step for _, step in ran} == edit.steps | edit.once, f"{name}: {sorted({step for _, step in ran})}"
        assert len(ran) == len(set(ran)) == expected, f"{name}: {len(ran)} steps"
        rows.append(_row(name, run, len(ran)))
        assert not repository.doit().stderr, f"{name}: something was left to do"
    rows.append(_row("ninja: nothing", _ninja(repository), 0))
    (repository.folder / "ninja" / "build-resources" / "image-0" / "session.yml").unlink()
    rows.append(_row("ninja: one edge", _ninja(repository), 1))
    print(table([f"{repository.images} images, changed:", "steps", "s", "processor s", "MB"], rows))


def _ninja(repository: Repository) -> Run:
    return timed([ninja()], environment=repository.environment, folder=repository.folder / "ninja")


def _row(name: str, run: Run, steps: int) -> list[str]:
    return [name, str(steps), f"{run.seconds:.3f}", f"{run.processor:.3f}", megabytes(run.peak)]


def main() -> int:
    """Build the repository, if need be, and edit it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="folder in which what was built stays for the next time")
    given = parser.parse_args()
    print(machine("none"))
    print(f"command: python {Path(__file__).relative_to(ROOT)} --images {given.images}\n")
    with built_repository(given.keep, given.images) as repository:
        measure(repository)
    return 0


if __name__ == "__main__":
    sys.exit(or_say_what_is_missing(main))
