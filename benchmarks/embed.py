"""What embedding a tree in the binary costs, as a ratio to `cp -r` of the same tree in the same run.

Usage: python benchmarks/embed.py [--sizes 10,100,500] [--repeat 3] [--array 10]

Beside it: objcopy --add-section, ld -r -b binary, and, for --array megabytes (0: not at all), a C array compiled by gcc.
"embed" is the whole way from a folder to the ELF file; "one changed" the same again after one file of the tree has other
bytes; "whole build" is `sconify_image --binary-fs` from that folder to an OCI layout. Rounds take turns, the fastest
counts. "floor" is what the passes that can't be left out take by themselves in the same run, spread evenly over two cores,
without starting Python: `embed_floor.py`. Needs binutils and gcc.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from embed_floor import CORES, NEEDED, passes
from measuring import ROOT, Case, Run, Unavailable, installed, machine, megabytes, or_say_what_is_missing, table, timed

FILE = 256 << 10
RUNTIME = ROOT / "sconify_tasks" / "runtime" / "bin" / "runtime-amd64"
AIM = 3.0


def main() -> int:
    """Measure, and print a table for each size."""
    parser = argparse.ArgumentParser(description="What embedding a tree costs.")
    parser.add_argument("--sizes", default="10,100,500", metavar="MB,…")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--array", type=int, default=10, metavar="MB")
    given = parser.parse_args()
    tools = [tool for tool in ("cp", "objcopy", "ld", "gcc") if shutil.which(tool) is None]
    if tools:
        raise Unavailable(f"missing: {', '.join(tools)} (apt install binutils gcc)")
    print(machine("none"))
    with tempfile.TemporaryDirectory(prefix="embed-") as scratch:
        for size in (int(size) for size in given.sizes.split(",")):
            _measure(Path(scratch) / str(size), size, given.repeat, array=size == given.array)
    return 0


def _measure(folder: Path, size: int, repeat: int, *, array: bool) -> None:
    tree = folder / "tree"
    _make_tree(tree, size << 20)
    cases: dict[str, Case] = {}
    for _ in range(repeat):
        for name, measure in _cases(folder, tree).items():
            cases.setdefault(name, Case()).runs.append(measure())
    if array:
        cases["C array, gcc -O0"] = Case(runs=[_array(folder)])
    reference = cases["cp -r"].seconds
    rows = [
        [
            *(name, f"{case.seconds:.3f}", f"{case.seconds / reference:.2f}", f"{case.processor:.2f}", megabytes(case.peak)),
            _aim(case.seconds / reference) if name == "embed" else "",
        ]
        for name, case in cases.items()
    ]
    print(f"\n{size} MB in files of 256 KiB")
    print(table(["", "seconds", "to cp", "processor", "peak MB", "aim"], rows))
    parts = passes(folder / "one.bin", folder / "copied")
    print("one pass each, processor seconds: " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in parts.items()))
    for name, needed in NEEDED.items():
        floor = sum(parts[part] * times for part, times in needed.items()) / CORES
        print(f"floor of {name}: {floor:.3f} s on {CORES} cores, {floor / reference:.2f} to cp")
    shutil.rmtree(folder)


def _aim(ratio: float) -> str:
    return f"{AIM:.0f}: {'reached' if ratio <= AIM else 'missed'}"


def _make_tree(tree: Path, size: int) -> None:
    source = random.Random(size)
    for number in range(size // FILE):
        path = tree / f"d{number % 16}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(FILE))
    shutil.copy("/bin/true", tree / "program")
    with (tree.parent / "one.bin").open("wb") as out:
        for path in sorted(tree.rglob("file*")):
            out.write(path.read_bytes())


def _cases(folder: Path, tree: Path) -> dict[str, Callable[[], Run]]:
    blob, work = folder / "one.bin", folder / "work"
    embed = [sys.executable, str(ROOT / "benchmarks" / "embed_tree.py"), str(tree), str(work), str(RUNTIME)]

    def run(*command: str) -> Run:
        (folder / "out").mkdir(exist_ok=True)
        return timed(command, environment=_installed_environment(), folder=folder / "out")

    def cold(*command: str, made: Path) -> Run:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        return run(*command)

    def changed(*command: str) -> Run:
        path = tree / "d3" / "file3"
        path.write_bytes(os.urandom(FILE))
        return run(*command)

    home = folder / "home"
    build = _build(folder, tree, home)
    return {
        "cp -r": lambda: cold("cp", "-r", str(tree), str(folder / "copy"), made=folder / "copy"),
        "embed": lambda: cold(*embed, made=work),
        "embed, one changed": lambda: changed(*embed),
        "objcopy --add-section": lambda: run("objcopy", "--add-section", f".fs={blob}", str(RUNTIME), "objcopied"),
        "ld -r -b binary": lambda: run("ld", "-r", "-b", "binary", "-o", "linked.o", str(blob)),
        "whole build": lambda: cold(*build, made=home),
        "whole build, one changed": lambda: changed(*build),
    }


def _installed_environment() -> dict[str, str]:
    """As an installed program has it: compiled once. Else every run would pay Python's compiler."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _build(folder: Path, tree: Path, home: Path) -> list[str]:
    return [
        *("env", f"HOME={home}", f"SCONIFY_ROOT_KEY={'5a' * 32}", installed("sconify_image")),
        *(f"--from=dir:{tree}", f"--to=oci:{folder / 'layout'}:embedded", "--binary=/program", "--command=/program"),
        *("--base=scratch", "--binary-fs", "--fs-dir=/", "--disable-copy-shared-object-dependencies", "--allow-debug-mode"),
        *(f"--session={folder / 'session.yml'}", "--disable-session-upload"),
    ]


def _array(folder: Path) -> Run:
    """The text is made outside of what is measured."""
    with (folder / "array.c").open("w") as out:
        out.write("const unsigned char content[] = {\n")
        data = (folder / "one.bin").read_bytes()
        for start in range(0, len(data), 64):
            out.write(",".join(map(str, data[start : start + 64])) + ",\n")
        out.write("};\n")
    return timed(["gcc", "-O0", "-c", "array.c", "-o", "array.o"], environment=os.environ, folder=folder)


if __name__ == "__main__":
    sys.exit(or_say_what_is_missing(main))
