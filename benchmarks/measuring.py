"""What both benchmarks share: timed commands, tables, what is said of the machine, parts borrowed from the tests."""

from __future__ import annotations

import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MISSING = 2
_MEGABYTE = 1 << 20


class Unavailable(Exception):  # noqa: N818 - the benchmark can't run here, and says what is missing
    """Something outside is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a command: wall-clock and processor seconds, and the peak of the largest process in its tree, in bytes."""

    seconds: float
    processor: float
    peak: int
    stderr: str = field(default="", repr=False)


@dataclass(slots=True)
class Case:
    """The runs of one case. The fastest counts: on a shared machine all noise makes slower."""

    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of the fastest run."""
        return min(run.seconds for run in self.runs)

    @property
    def processor(self) -> float:
        """Of the run that used least."""
        return min(run.processor for run in self.runs)

    @property
    def peak(self) -> int:
        """Of the largest run."""
        return max(run.peak for run in self.runs)


def timed(command: Sequence[str], *, environment: Mapping[str, str], folder: Path) -> Run:
    """Run a command and measure it. Its output is shown only where it fails; then the benchmark ends."""
    with tempfile.NamedTemporaryFile() as result:
        launcher = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "launch.py"), result.name]
        done = subprocess.run(
            [*launcher, *command], env=dict(environment), cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(
                f"{shlex.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        seconds, processor, peak = result.read().decode().split()
    return Run(seconds=float(seconds), processor=float(processor), peak=int(peak), stderr=done.stderr)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be; the first is flush left, all others right."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *padded[1:]]).rstrip()

    return "\n".join([line(headings), "  ".join("-" * width for width in widths), *map(line, rows)])


def megabytes(count: int) -> str:
    """Bytes as whole binary megabytes."""
    return f"{count / _MEGABYTE:.0f}"


def percentiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Median, 90th and 99th percentile."""
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return cuts[49], cuts[89], cuts[98]


def machine(engine: str) -> str:
    """What a reader must know to compare figures: processors, kernel, Python, engine, and how busy the machine was."""
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        os.uname().machine,
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"machine: {len(os.sched_getaffinity(0))} cores of {model}, {megabytes(memory)} MB, kernel {os.uname().release}, "
        f"Python {sys.version.split()[0]}, engine {engine}, load {load} at the start"
    )


def tests_on_path() -> None:
    """Let `parts` of the tests be imported: the engine and the Debian root file system are the same here and there."""
    place = str(ROOT / "tests")
    if place not in sys.path:
        sys.path.insert(0, place)


def or_say_what_is_missing(benchmark: Callable[[], int]) -> int:
    """Run the benchmark; a part that is missing is exit code 2 and one line."""
    try:
        import pytest  # the parts of the tests say with its exceptions what is missing
    except ImportError:
        print('pytest is missing: pip install -e ".[test]"', file=sys.stderr)
        return MISSING
    # Whatever ends a benchmark, what it made in an engine is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return benchmark()
    except (pytest.skip.Exception, pytest.fail.Exception, Unavailable) as error:
        print(str(error).removeprefix("NOT TESTED HERE: "), file=sys.stderr)
        return MISSING
    except KeyboardInterrupt:
        return 130


def installed(program: str) -> str:
    """Path of one of the project's console scripts, beside this interpreter."""
    path = Path(sys.executable).with_name(program)
    if not path.exists():
        raise Unavailable(f"{path} is missing: install the project into this environment (pip install -e .)")
    return str(path)
