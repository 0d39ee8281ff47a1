"""What one changed file costs in a tree of many small protected ones: processor seconds, and what was read and encrypted.

Usage: python benchmarks/tree.py [--files 30000] [--size 700]

From `dir:` to `oci:`. Needs a C compiler, and no engine. The reference is `tar` and `sha256sum` of the same tree.
Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measuring import Case, Run, Unavailable, installed, machine, megabytes, or_say_what_is_missing, table, timed

COUNTED = ("files read", "files encrypted", "layers searched", "layers verified before", "members verified before")
_DIRECTORIES = 199
_SETTLED = 3  # seconds: a file that was written just now is "racily clean", and read again
_PROGRAM = "int main(void) { return 0; }\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The native image, and where its conversions lie."""

    work: Path

    @property
    def native(self) -> Path:
        """The root file system."""
        return self.work / "native"

    def make(self, files: int, size: int) -> None:
        """A program, and `files` files of `size` random bytes each under /app."""
        for number in range(files):
            path = self.native / "app" / str(number % _DIRECTORIES) / f"file-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(random.Random(number).randbytes(size))
        (self.native / "bin").mkdir(exist_ok=True)
        compiler = shutil.which("cc")
        if compiler is None:
            raise Unavailable("cc is missing: install gcc")
        command = [compiler, "-static", "-x", "c", "-", "-o", str(self.native / "bin" / "prog")]
        subprocess.run(command, input=_PROGRAM.encode(), check=True)
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/prog"], "WorkingDir": "/app"}}
        self.native.with_name("native.json").write_text(json.dumps(config))

    def change(self) -> None:
        """Give one file other bytes of the same size."""
        path = self.native / "app" / "7" / "file-7"
        path.write_bytes(random.Random(-1).randbytes(path.stat().st_size))

    def convert(self, label: str) -> tuple[Run, dict[str, int]]:
        """Run the command; what its steps counted comes from the event file."""
        events = self.work / f"{label}.jsonl"
        command = [installed("sconify_image"), f"--from=dir:{self.native}", f"--to=oci:{self.work / 'out'}:1", "--base=scratch"]
        command += ["--binary=/bin/prog", "--dir=/app", "--allow-debug-mode", "--disable-pie-check", f"--events={events}"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.work / "home")}
        run = timed(command, environment=environment, folder=self.work)
        counts: dict[str, int] = {}
        for line in events.read_text().splitlines():
            for what, number in (json.loads(line).get("counts") or {}).items():
                counts[what] = counts.get(what, 0) + number
        return run, counts


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="tree.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=30_000, help="protected files [default: 30000]")
    parser.add_argument("--size", type=int, default=700, help="bytes of each [default: 700]")
    options = parser.parse_args()
    return or_say_what_is_missing(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="sconify-bench-") as folder:
        tree = Tree(work=Path(folder))
        tree.make(options.files, options.size)
        print(machine("none"))
        reference = ["sh", "-c", f"tar -C {tree.native} -cf {folder}/tree.tar . && sha256sum {folder}/tree.tar"]
        tarred = timed(reference, environment={"PATH": os.environ["PATH"]}, folder=tree.work)
        time.sleep(_SETTLED)
        rows = [_row("reference: tar and sha256sum", tarred, {}, options.files)]
        rows.append(_row("cold", *tree.convert("cold"), options.files))
        rows.append(_row("no-op", *tree.convert("no-op"), options.files))
        tree.change()
        time.sleep(_SETTLED)
        rows.append(_row("one file", *tree.convert("one"), options.files))
    headings = ("case", "seconds", "processor s", "ms a file", "peak MB", *COUNTED)
    print(table(headings, rows))
    return 0


def _row(label: str, run: Run, counts: dict[str, int], files: int) -> tuple[str, ...]:
    case = Case([run])
    figures = (f"{case.seconds:.2f}", f"{case.processor:.2f}", f"{1000 * case.processor / files:.3f}", megabytes(case.peak))
    return (label, *figures, *(str(counts.get(what, 0)) for what in COUNTED))


if __name__ == "__main__":
    sys.exit(main())
