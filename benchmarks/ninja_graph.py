"""ninja's graph of a built repository: an edge for each step of each image, and the same files, empty, as inputs and outputs.

Inputs are the native image's files and its configuration, outputs what was delivered: layout, session, layers. ninja looks at
each of them in a no-op, as `doit sconify` does; folders, which `doit sconify` looks at too, are left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from measuring import Unavailable
from repository import Repository

_RULE = "rule touch\n  command = touch $out\n"


def ninja() -> str:
    """The program."""
    found = shutil.which("ninja") or str(Path(sys.executable).with_name("ninja"))
    if not Path(found).exists():
        raise Unavailable("ninja is missing: pip install ninja")
    return found


def make_graph(repository: Repository, steps: int) -> Path:
    """Write the graph into its own folder and build it once."""
    place = repository.folder / "ninja"
    place.mkdir()
    lines = [_RULE]
    for number in range(repository.images):
        lines += _image(repository, place, number, steps)
    (place / "build.ninja").write_text("\n".join(lines) + "\n")
    subprocess.run([ninja()], cwd=place, check=True, stdout=subprocess.DEVNULL)
    return place


def _image(repository: Repository, place: Path, number: int, steps: int) -> list[str]:
    native = repository.native(number)
    sources = [native.with_name(f"{number}.json"), *files_below(native)]
    for source in sources:
        copy = place / source.relative_to(repository.project)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    inputs = [str(source.relative_to(repository.project)) for source in sources]
    edges = _outputs(repository, number, steps)
    return [
        f"build {' '.join(outputs)}: touch {' '.join(inputs) if not edge else edges[edge - 1][0]}"
        for edge, outputs in enumerate(edges)
    ]


def _outputs(repository: Repository, number: int, steps: int) -> list[list[str]]:
    """What was made of an image, dealt out to its edges, the last ones first; an edge that gets nothing has a stamp."""
    folders = (repository.layout(number), repository.resources(number))
    made = [path for folder in folders for path in files_below(folder) if path.name != ".sconify.lock"]
    edges: list[list[str]] = [[] for _ in range(steps)]
    for at, path in enumerate(made):
        edges[-1 - at % steps].append(str(path.relative_to(repository.project)))
    return [outputs or [f"stamps/{number}/{edge}"] for edge, outputs in enumerate(edges)]


def files_below(folder: Path) -> list[Path]:
    """Every file, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
