"""Start a program in a root file system again and again, natively and shielded in turn; print the milliseconds as JSON.

Run by shield.py in a mount namespace of its own. Standard input: {"rounds": N, "variants": {NAME: {"root", "argv", "env"}}}.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any


def prepare(root: str) -> None:
    """What an engine mounts, as far as an interpreter looks at it."""
    for name, arguments in (("proc", ["-t", "proc", "proc"]), ("dev", ["--bind", "/dev"])):
        place = f"{root}/{name}"
        os.makedirs(place, exist_ok=True)  # noqa: PTH103
        subprocess.run(["mount", *arguments, place], check=True)


def start(variant: dict[str, Any]) -> float:
    """One start, until the program has ended; the milliseconds it took."""
    begun = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            os.chroot(variant["root"])
            os.chdir("/")
            os.execve(variant["argv"][0], variant["argv"], variant["env"])
        finally:
            os._exit(127)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - begun
    if status:
        raise SystemExit(f"{variant['argv']} in {variant['root']} ended with status {status}")
    return seconds * 1000


def main() -> None:
    """Warm up once, then take turns."""
    task = json.load(sys.stdin)
    samples: dict[str, list[float]] = {name: [] for name in task["variants"]}
    for variant in task["variants"].values():
        prepare(variant["root"])
        start(variant)
    for _ in range(task["rounds"]):
        for name, variant in task["variants"].items():
            samples[name].append(start(variant))
    json.dump(samples, sys.stdout)


if __name__ == "__main__":
    main()
