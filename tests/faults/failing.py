"""Runs of the program on a disk that fails, or on a machine that dies, at a chosen write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from build.small_image import Place
from cli.commands import Ended, arguments, variables

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """At the `at`-th write: `error`, from then on if it `stays`; or the end of the process. `at` 0 is never."""

    at: int = 0
    error: int = 0
    stays: bool = False
    kills: bool = False


NONE = Fault()


class Zygote:
    """See `zygote.py`."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self._process = subprocess.Popen(
            [sys.executable, HERE / "zygote.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"LD_PRELOAD": str(library)},
        )

    def run(
        self,
        place: Place,
        native: Path,
        fault: Fault = NONE,
        *,
        cpus: int = 1,
        log: Path | None = None,
        more: tuple[str, ...] = (),
    ) -> Ended:
        """One run, on one processor unless told otherwise: then writes come in the same order every time."""
        out, errors = place.folder.with_suffix(".stdout"), place.folder.with_suffix(".stderr")
        order = {
            "words": arguments(native, place, *more),
            "folder": str(place.folder),
            "variables": variables(place),
            "stdout": str(out),
            "stderr": str(errors),
            "library": str(self._library),
            "below": str(place.folder),
            "cpus": cpus,
            "at": fault.at or -1,
            "error": fault.error,
            "stays": int(fault.stays),
            "kills": int(fault.kills),
            "log": str(log or ""),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return Ended(code=int(answer), stdout=out.read_text(), stderr=errors.read_text())

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
