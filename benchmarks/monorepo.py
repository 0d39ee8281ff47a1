"""A repository of many images: one image's source changed, and a cold build with two jobs against one.

In the first case one image has a native folder of its own, so that a change is its own: only its stale steps are to run.
The second builds small images from one folder, cold, with `-n 1` and `-n 2` in turn; the ratio is what parallelism gains.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import ROOT, Case, installed, machine, megabytes, or_say_what_is_missing, table, timed
from noop import make_project


def environment_of(folder: Path) -> dict[str, str]:
    """No engine, and a home of the benchmark's own."""
    return {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nonexistent"}


def one_change(images: int) -> None:
    """Change one file of one image's source; count what runs."""
    doit = installed("doit")
    with tempfile.TemporaryDirectory(prefix="sconify-benchmark-") as scratch:
        folder = Path(scratch)
        place = make_project(folder, images)
        own = folder / "own"
        shutil.copytree(folder / "native", own, symlinks=True)
        shutil.copy(folder / "native.json", folder / "own.json")
        text = (place / "sconify.yaml").read_text()
        changed = text.replace("image-0: {", f"image-0: {{from: 'dir:{own}', ", 1)
        (place / "sconify.yaml").write_text(changed)
        environment = environment_of(folder)
        cold = timed([doit, "sconify"], environment=environment, folder=place)
        timed([doit, "sconify"], environment=environment, folder=place)
        idle = timed([doit, "sconify"], environment=environment, folder=place)
        (own / "app" / "secret").write_bytes(b"another content")
        begun = subprocess.run([doit, "sconify"], cwd=place, env=environment, capture_output=True, text=True, check=True)
        ran = re.findall(r"^(\S+): (\S+) done", begun.stderr, re.MULTILINE)
    print(f"{images} images: first build {cold.seconds:.1f} s ({megabytes(cold.peak)} MB), no-op {idle.seconds:.2f} s")
    print(f"one file of one image changed: {len(ran)} steps ran, of {len({image for image, _ in ran})} image(s)\n")


def two_jobs(images: int, rounds: int) -> None:
    """Build cold with one job and with two."""
    doit = installed("doit")
    cases = {1: Case(), 2: Case()}
    for _ in range(rounds):
        for jobs, case in cases.items():
            with tempfile.TemporaryDirectory(prefix="sconify-benchmark-") as scratch:
                place = make_project(Path(scratch), images)
                command = [doit, "sconify", "-n", str(jobs)]
                case.runs.append(timed(command, environment=environment_of(Path(scratch)), folder=place))
    one = cases[1].seconds
    rows = [
        [f"-n {jobs}", f"{case.seconds:.2f}", f"{case.processor:.2f}", f"{one / case.seconds:.2f}", megabytes(case.peak)]
        for jobs, case in cases.items()
    ]
    print(table([f"cold, {images} images", "s", "processor s", "times as fast", "MB"], rows))


def main() -> int:
    """Run both cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--cold", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    words = f"--images {given.images} --cold {given.cold} --rounds {given.rounds}"
    print(machine("none"))
    print(f"command: python {Path(__file__).relative_to(ROOT)} {words}\n")
    one_change(given.images)
    two_jobs(given.cold, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(or_say_what_is_missing(main))
