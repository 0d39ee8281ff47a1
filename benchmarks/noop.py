"""A run that finds nothing to do: one image (12 and more steps), and a thousand, against `import doit` and ninja's no-op.

The project is real: a sconify.yaml, native images as OCI layouts, and every image delivered into a layout with its build
resources. Images share a native one and differ in their options. ninja's graph has as
many edges as there are steps, each with a real output file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import (
    ROOT,
    Case,
    Unavailable,
    installed,
    machine,
    megabytes,
    or_say_what_is_missing,
    table,
    tests_on_path,
    timed,
)


def make_project(folder: Path, images: int) -> Path:
    """Write a project; every image has a layout of its own."""
    tests_on_path()
    from build.small_image import compile_program, make_native

    gcc = shutil.which("gcc")
    if gcc is None:
        raise Unavailable("gcc is missing: it compiles the native image's program")
    native = make_native(folder / "native", compile_program(gcc, folder / "prog", "-static", "-s"))
    place = folder / "project"
    place.mkdir()
    lines = ["version: 1", "project: benchmark", "defaults:", "  base: scratch", "  binary: /bin/prog", "  dir: [/app]"]
    lines += ["  allow-debug-mode: true", "  disable-pie-check: true", f"  from: dir:{native}", "images:"]
    lines += [f"  image-{number}: {{to: 'oci:out/{number}:1', env: [NUMBER={number}]}}" for number in range(images)]
    (place / "sconify.yaml").write_text("\n".join(lines) + "\n")
    return place


def make_ninja(folder: Path, edges: int) -> Path:
    """A graph of as many edges, in chains of twelve, each with an output that is there."""
    place = folder / "ninja"
    place.mkdir()
    lines = ["rule touch", "  command = touch $out"]
    for edge in range(edges):
        above = f"out/{edge // 12}/{edge % 12 - 1}" if edge % 12 else "source"
        lines.append(f"build out/{edge // 12}/{edge % 12}: touch {above}")
    (place / "source").write_text("")
    (place / "build.ninja").write_text("\n".join(lines) + "\n")
    return place


def measure(images: int, rounds: int) -> None:
    """Build once, then time what finds nothing to do."""
    ninja = shutil.which("ninja") or str(Path(sys.executable).with_name("ninja"))
    if not Path(ninja).exists():
        raise Unavailable("ninja is missing: pip install ninja")
    doit = installed("doit")
    with tempfile.TemporaryDirectory(prefix="sconify-benchmark-") as scratch:
        folder = Path(scratch)
        environment = {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nonexistent"}
        place = make_project(folder, images)
        cold = timed([doit, "sconify"], environment=environment, folder=place)
        steps = sum(1 for _ in _steps()) * images
        graph = make_ninja(folder, steps)
        subprocess.run([ninja, "-j2"], cwd=graph, check=True, stdout=subprocess.DEVNULL)
        timed([doit, "sconify"], environment=environment, folder=place)  # settles what was too new to be told apart
        commands = {
            "import doit": ([sys.executable, "-c", "import doit"], place),
            "ninja": ([ninja], graph),
            "doit sconify": ([doit, "sconify"], place),
        }
        cases = {name: Case() for name in commands}
        for _ in range(rounds):
            for name, (command, where) in commands.items():
                cases[name].runs.append(timed(command, environment=environment, folder=where))
    print(f"{images} images, {steps} steps; first build {cold.seconds:.1f} s, {megabytes(cold.peak)} MB")
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
    print(table(["no-op", "ms", "processor ms", "/ import doit", "/ ninja", "MB"], rows), end="\n\n")


def _steps() -> tuple[object, ...]:
    from sconify_tasks.graph import STEPS

    return STEPS


def main() -> int:
    """Run both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    print(machine("none"))
    print(f"command: python {Path(__file__).relative_to(ROOT)} --images {given.images} --rounds {given.rounds}\n")
    for images in (1, given.images):
        measure(images, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(or_say_what_is_missing(main))
