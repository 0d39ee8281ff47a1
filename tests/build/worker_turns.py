"""A build of many images by two workers that have memory for nothing: `python -m build.worker_turns FOLDER NATIVE…`.

Prints as JSON when each heavy step really ran, and in which process. The first one ends when another worker waits for room.
"""

from __future__ import annotations

import json
import os
import sys
import time
from mmap import mmap
from pathlib import Path

from build.small_image import Place, Recorder, order_for, world_of
from msgspec.structs import replace

from sconify_dodo.front import build_all
from sconify_tasks.build import Build
from sconify_tasks.memory_budget import MemoryBudget

PATIENCE = 60
somebody_waits = mmap(-1, 1)


class Watched(MemoryBudget):
    """Tells when one must wait."""

    def _fits(self, size: int) -> bool:
        fits = super()._fits(size)
        if not fits:
            somebody_waits[0] = 1
        return fits


def main(folder: Path, natives: list[Path]) -> None:
    """Build, and watch how the steps run."""
    place, log, run = Place(folder=folder), folder / "runs", Build._run

    def watched(build: Build, step):
        if not step.whole:
            return run(build, step)
        begun = time.monotonic_ns()
        while not somebody_waits[0]:
            assert time.monotonic_ns() < begun + PATIENCE * 10**9
            time.sleep(0.001)
        found = run(build, step)
        with log.open("a") as file:
            file.write(json.dumps([begun, time.monotonic_ns(), os.getpid(), build.name, step.name]) + "\n")
        return found

    Build._run = watched
    orders = []
    for native in natives:
        order = order_for(native, place, to=f"oci:{place.layout}/{native.name}:1", name=native.name)
        orders.append(replace(order, name=native.name, resources=place.resources / native.name))
    with world_of(place, Recorder()) as world:
        world.memory = Watched(1)
        assert build_all(world, orders, jobs=2, keep_going=False, debug=True).code == 0
    runs = [json.loads(line) for line in log.read_text().splitlines()]
    json.dump({"run": os.getpid(), "heavy": runs}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
