"""A run that finds nothing to do: one image, and a thousand, against `import doit` and ninja's no-op of the same graph.

The project is real: files that include each other, a native image for each image, everything delivered, with its resources
(`repository.py`). ninja's graph has an edge for each step, and looks at the same files (`ninja_graph.py`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from measuring import ROOT, Case, machine, megabytes, or_say_what_is_missing, table, timed
from ninja_graph import ninja
from repository import Repository, built_repository, steps_of_an_image


def measure(repository: Repository, rounds: int) -> None:
    """Time what finds nothing to do, in turns."""
    commands = {"import doit": [sys.executable, "-c", "import doit"], "ninja": [ninja()]}
    cases = {name: Case() for name in (*commands, "doit sconify")}
    for _ in range(rounds):
        for name, command in commands.items():
            cases[name].runs.append(timed(command, environment=repository.environment, folder=repository.folder / "ninja"))
        cases["doit sconify"].runs.append(repository.doit())
        assert not cases["doit sconify"].runs[-1].stderr, "it found something to do"
    rows = [
        [
            name,
            f"{case.seconds * 1000:.0f}",
            f"{case.processor * 1000:.0f}",
            f"{case.processor / cases['import doit'].processor:.2f}",
            f"{case.processor / max(cases['ninja'].processor, 0.001):.2f}",
            megabytes(case.peak),
        ]
        for name, case in cases.items()
    ]
    headings = [
        f"no-op, {repository.images * steps_of_an_image()} steps",
        "ms",
        "processor ms",
        "/ import doit",
        "/ ninja",
        "MB",
    ]
    print(table(headings, rows), end="\n\n")


def main() -> int:
    """Run both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="folder in which what was built stays for the next time")
    given = parser.parse_args()
    print(machine("none"))
    print(f"command: python {Path(__file__).relative_to(ROOT)} --images {given.images} --rounds {given.rounds}\n")
    for images in (1, given.images):
        with built_repository(given.keep, images) as repository:
            measure(repository, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(or_say_what_is_missing(main))
