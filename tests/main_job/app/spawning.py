"""multiprocessing with fork and with spawn: a spawned child imports this protected file anew."""

# ruff: noqa: T201

import multiprocessing
import sys
from pathlib import Path


def work(number):
    return number * number, Path("/app/greeting.txt").read_text()


if __name__ == "__main__":
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, pool.map(work, range(4)))
    sys.exit(0)
