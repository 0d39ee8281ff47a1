"""Runs of the program on a disk that fails, on a machine that dies, or interrupted, at a chosen write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build.small_image import Place
from cli.commands import Ended, variables

HERE = Path(__file__).parent


def compile_faults(gcc: str | Path, library: Path) -> Path:
    """faults.c, compiled."""
    words = [gcc, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", library, HERE / "faults.c", "-ldl"]
    subprocess.run(words, check=True)
    return library


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """At the `at`-th write of the run and its workers: `error`, from then on if it `stays`; or a `signal` to the run, or
    `to_writer`, the one of its processes that writes. `at` 0 is never.
    """

    at: int = 0
    error: int = 0
    stays: bool = False
    signal: int = 0
    to_writer: bool = False


NONE = Fault()


class Zygote:
    """See `zygote.py`. Each has a processor of its own where there are as many as test processes."""

    def __init__(self, library: Path | None) -> None:
        self._library = library or ""
        self._loaded = False
        cpus = sorted(os.sched_getaffinity(0))
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self._cpus = cpus[worker % len(cpus) :] + cpus[: worker % len(cpus)]
        self._process = subprocess.Popen(
            [sys.executable, HERE / "zygote.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({"LD_PRELOAD": str(library)} if library else {}),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(
        self,
        place: Place,
        words: Sequence[str],
        fault: Fault = NONE,
        *,
        cpus: int = 1,
        log: Path | None = None,
        more: Mapping[str, str] | None = None,
        seen: Path | None = None,
    ) -> Ended:
        """One run, on one processor unless told otherwise: then writes come in the same order every time.

        `log` gets a line for every write from the fault on; for all where there is none. `more` are variables, where an
        empty one is not set. `seen` gets a line for each worker and each look at a project file.
        """
        out, errors = place.folder.with_suffix(".stdout"), place.folder.with_suffix(".stderr")
        set_to = variables(place, **(more or {}))
        order = {
            "words": list(words),
            "folder": str(place.folder),
            "variables": {name: value for name, value in set_to.items() if value},
            "stdout": str(out),
            "stderr": str(errors),
            "library": str(self._library),
            "below": str(place.folder),
            "cpus": self._cpus[:cpus],
            "at": fault.at or -1,
            "error": fault.error,
            "stays": int(fault.stays),
            "signal": fault.signal,
            "to_writer": int(fault.to_writer),
            "log": str(log or ""),
            "seen": str(seen or ""),
            "modules": "" if self._loaded else str(place.folder.with_suffix(".modules")),
        }
        self._loaded = True
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        ended = Ended(code=int(answer), stdout=out.read_text(), stderr=errors.read_text())
        out.unlink()
        errors.unlink()
        return ended

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def sample(count: int, of: int, *, seed: int) -> list[int]:
    """Numbers from 1 to `of`: one, drawn by `seed`, in each of `count` equal parts; all where there are not more."""
    import random

    if of <= count:
        return list(range(1, of + 1))
    draw = random.Random(seed)
    return [1 + int((part + draw.random()) * of / count) for part in range(count)]
