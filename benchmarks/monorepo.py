"""Many small images built cold, with one job and with two: the ratio is what parallelism gains.

One edit in a repository of many images is `edit.py`, a run that finds nothing to do `noop.py`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measuring import ROOT, Case, machine, megabytes, or_say_what_is_missing, table
from repository import make_repository


def two_jobs(images: int, rounds: int) -> None:
    """Build cold with one job and with two, in turns.

    Nothing is removed before the end: ext4 passes over inodes that were freed within the last seconds, one by one.
    """
    cases = {1: Case(), 2: Case()}
    with tempfile.TemporaryDirectory(prefix="sconify-benchmark-") as scratch:
        for number in range(rounds):
            for jobs, case in cases.items():
                repository = make_repository(Path(scratch) / f"{number}-{jobs}", images)
                case.runs.append(repository.doit("-n", str(jobs)))
    one = cases[1].seconds
    rows = [
        [f"-n {jobs}", f"{case.seconds:.2f}", f"{case.processor:.2f}", f"{one / case.seconds:.2f}", megabytes(case.peak)]
        for jobs, case in cases.items()
    ]
    print(table([f"cold, {images} images", "s", "processor s", "times as fast", "MB"], rows))


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine("none"))
    print(f"command: python {Path(__file__).relative_to(ROOT)} --images {given.images} --rounds {given.rounds}\n")
    two_jobs(given.images, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(or_say_what_is_missing(main))
