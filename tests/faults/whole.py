"""Let every write of a build fail, one build a write: `PYTHONPATH=tests python -m faults.whole [ROW…]`; the result is a table.

A row is `DOOR:WAY[:FIRST[-LAST]]`: `one_image:ENOSPC:from-then-on:700`, `project:EIO:once:1-200`; or `DOOR:WAY:~N`, N writes spread
over the build. Ways are an error, once or from then on. Or it is `DOOR:SIGNAL:N`, a signal at each of N writes spread over the build: `kill`, `interrupt` or `terminate` for the run,
`kill-writer` for the one of its processes that writes. Doors: `one_image`; `project` (one image, -n 1); `parallel` (the same, -n 4);
`many` (four images, -n 2, in worker processes). The last two run on all processors. Without words: all rows.
About 0.6 s of processor time a write, of many images 1 s. The exit code is 1 where a promise was broken; what was is printed when
it happens. What is printed is a table of docs/robustness.md.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from build.small_image import compile_program, make_native
from faults.every_write import INTERRUPTED, NOT_REACHED, Tally, try_writes
from faults.failing import Fault, Zygote, compile_faults, sample
from faults.scenarios import Scenario, image_words, many_words, project_words, scenario

SEED = 20261125
DOORS = ("one_image", "project")
WAYS = ("ENOSPC:from-then-on", "ENOSPC:once", "EIO:from-then-on", "EIO:once")
SIGNALS = {
    "kill": Fault(signal=signal.SIGKILL),
    "kill-writer": Fault(signal=signal.SIGKILL, to_writer=True),
    "interrupt": Fault(signal=signal.SIGINT),
    "terminate": Fault(signal=signal.SIGTERM),
}
ROWS = (
    *(f"{door}:{way}" for door in DOORS for way in WAYS),
    "parallel:kill:200",
    *(f"many:{way}:200" for way in SIGNALS),
    *(f"many:{way}:~100" for way in WAYS),
)
ON_ALL_PROCESSORS = ("parallel", "many")
HEAD = (
    *("build and failure", "writes", "tried", "exit 0", "exit 1", "exit 2", "exit 130", "by the signal", "not reached"),
    *("broken promises", "cpu s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one row of the table asks for; `last` 0 is the last write."""

    door: str
    fault: Fault
    first: int = 1
    last: int = 0
    points: int = 0

    @staticmethod
    def parse(text: str) -> Row:
        door, kind, how, *where = text.split(":")
        if kind in SIGNALS:
            return Row(door=door, fault=SIGNALS[kind], points=int(how))
        fault = Fault(error=getattr(errno, kind), stays=how == "from-then-on")
        if where and where[0].startswith("~"):
            return Row(door=door, fault=fault, points=int(where[0][1:]))
        first, _, last = (where[0] if where else "1-0").partition("-")
        return Row(door=door, fault=fault, first=int(first), last=int(last or 0))

    def numbers(self, writes: int) -> list[int]:
        if self.points:
            return sample(self.points, writes, seed=SEED)
        return list(range(self.first, (self.last or writes) + 1))


def scenarios(folder: Path, stack: ExitStack) -> dict[str, Scenario]:
    """The doors, by name."""
    gcc = shutil.which("gcc") or "gcc"
    native = make_native(folder / "native", compile_program(gcc, folder / "prog", "-static"))
    zygote = Zygote(compile_faults(gcc, folder / "faults.so"))
    stack.callback(zygote.close)
    words = {
        "one_image": image_words(native),
        "project": project_words(native, "-n", "1"),
        "parallel": project_words(native, "-n", "4"),
        "many": many_words(native),
    }
    processes = {"many": 2}
    return {
        name: stack.enter_context(scenario(zygote, native, of, processes=processes.get(name, 1))) for name, of in words.items()
    }


def processor_seconds(zygote: Zygote) -> float:
    """Of this process, and of all builds so far."""
    children = Path(f"/proc/{zygote.pid}/stat").read_text().rpartition(")")[2].split()[13:15]
    return time.process_time() + sum(map(int, children)) / os.sysconf("SC_CLK_TCK")


def cells(name: str, writes: int, tally: Tally, seconds: float) -> list[str]:
    by_signal = sum(count for code, count in tally.codes.items() if isinstance(code, int) and code < 0)
    ends = [*(tally.codes[code] for code in (0, 1, 2, INTERRUPTED)), by_signal, tally.codes[NOT_REACHED]]
    return [name, *map(str, [writes, tally.codes.total(), *ends, len(tally.wrong)]), f"{seconds:.0f}"]


def line(words: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(words) + " |"


def main(names: list[str]) -> int:
    """Run the rows; each is printed when it is done."""
    broken = False
    folder = Path(tempfile.mkdtemp(prefix="sconify-whole-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        doors = scenarios(folder, stack)
        print(line(HEAD), line(["---"] * len(HEAD)), sep="\n", flush=True)  # noqa: T201
        for name in names or ROWS:
            row = Row.parse(name)
            door = doors[row.door]
            calls = door.writes(signal=row.fault.signal)
            cpus = os.cpu_count() or 1 if row.door in ON_ALL_PROCESSORS else 1
            begun = processor_seconds(door.zygote)
            tally = try_writes(door, calls, row.numbers(len(calls)), row.fault, cpus=cpus)
            seconds = processor_seconds(door.zygote) - begun
            print(line(cells(f"`{name}`", len(calls), tally, seconds)), flush=True)  # noqa: T201
            broken = broken or bool(tally.wrong)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
