"""How long a conversion takes, as a ratio to a three-stage `docker build` that only copies, tars and hashes the same files.

Usage: python benchmarks/convert.py [--scale 0.1] [--repeat 3] [--source docker,dir] [--sink docker,oci] [--case cold,policy]

Every case is measured `--repeat` times, the reference in between; the fastest run counts and all are printed. Needs a
Docker Engine (SCONIFY_TEST_DOCKER_HOST, or dockerd and root), the docker command line, and mmdebstrap. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import native
from measuring import Case, installed, machine, megabytes, or_say_what_is_missing, table, tests_on_path, timed

CASES = ("first run", "cold", "no-op", "one file", "policy")
AIMS = {
    **{("oci", case): aim for case, aim in {"cold": 0.33, "no-op": 0.05, "one file": 0.25, "policy": 0.15}.items()},
    ("docker", "no-op"): 0.05,
}
ABOUT = {
    "first run": "nothing there: no cache, no keys, no CAS",
    "cold": "empty cache, output removed; root key and CAS are there",
    "no-op": "the same command again",
    "one file": "one protected file of 20 MB in 200 has other bytes",
    "policy": "another --env",
}


@dataclass(kw_only=True)
class Conversion:
    """One source and one sink, with a home folder of its own."""

    source: str
    sink: str
    folder: Path
    engine: Any
    from_image: str
    to_image: str
    made: set[str] = field(default_factory=set)
    cases: dict[str, Case] = field(default_factory=lambda: {name: Case() for name in CASES})

    @property
    def home(self) -> Path:
        """HOME of the command: cache and state lie below it."""
        return self.folder / "home"

    def command(self, *more: str) -> list[str]:
        """The command line that is measured."""
        return [
            installed("sconify_image"),
            f"--from={self.from_image}",
            f"--to={self.to_image}",
            "--base=scratch",
            f"--binary={native.BINARY}",
            "--dir=/app",
            "--allow-debug-mode",
            *more,
        ]

    def measure(self, case: str, *more: str) -> None:
        """Run once and keep the figures."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "DOCKER_HOST": self.engine.host}
        self.cases[case].runs.append(timed(self.command(*more), environment=environment, folder=self.folder))
        if self.sink == "docker":
            self.made.add(self.engine.client.images.get(self.to_image.removeprefix("docker:")).id)

    def empty(self, *, state: bool) -> None:
        """Remove what earlier runs left; the state folder, with root key and CAS, only when asked for."""
        for name in (".cache", *((".local", ".cas") if state else ())):
            shutil.rmtree(self.home / name, ignore_errors=True)
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        shutil.rmtree(self.folder / "build-resources", ignore_errors=True)
        self.forget()

    def forget(self) -> None:
        """Remove the images that were made in the engine."""
        for image in self.made:
            command = ["docker", "-H", self.engine.host, "rmi", "-f", image]
            subprocess.run(command, capture_output=True, check=False)
        self.made.clear()


@dataclass(kw_only=True)
class Bench:
    """The native image in both forms, and the reference."""

    engine: Any
    work: Path
    native: native.Native
    stack: str
    rootfs: str
    image: str
    reference: Case = field(default_factory=Case)
    changes: int = 0

    def measure_reference(self) -> None:
        """One build without the builder's cache."""
        dockerfile = self.work / "reference" / "Dockerfile"
        dockerfile.parent.mkdir(exist_ok=True)
        dockerfile.write_text(native.reference_dockerfile(self.image, self.rootfs))
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        self.reference.runs.append(timed(self.reference_command(), environment=environment, folder=dockerfile.parent))

    def reference_command(self) -> list[str]:
        """The command line of the reference."""
        name = f"{self.image.partition(':')[0]}-reference:1"
        self.engine.made.append(name)
        command = ["docker", "-H", self.engine.host, "build", "--no-cache", "--quiet", "--force-rm"]
        return [*command, "--network", "none", "--tag", name, "."]

    def change(self, source: str) -> None:
        """Change one file in the folder, and give the image of the engine the same."""
        self.changes += 1
        native.change_one_file(self.native, self.changes)
        if source == "docker":
            native.make_image(self.engine, self.stack, self.native, self.image)

    def measure(self, conversion: Conversion, cases: Container[str]) -> None:
        """One round of these cases."""
        conversion.empty(state=True)
        conversion.measure("first run")  # every other case needs what it leaves
        if "cold" in cases:
            conversion.empty(state=False)
            conversion.measure("cold")
        if "no-op" in cases:
            conversion.measure("no-op")
        if "one file" in cases:
            self.change(conversion.source)
            conversion.measure("one file")
        if "policy" in cases:
            conversion.measure("policy", f"--env=BENCHMARK={self.changes}")


def main() -> int:
    """Entry point."""
    options = _parser().parse_args()
    return or_say_what_is_missing(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="convert.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="size of the layers nobody selects [default: 1, some 940 MB]")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the fastest counts [default: 3]")
    parser.add_argument("--source", default="docker,dir", help="sources, with commas [default: docker,dir]")
    parser.add_argument("--sink", default="docker,oci", help="sinks, with commas [default: docker,oci]")
    parser.add_argument("--case", default=",".join(CASES), help="cases, with commas, beside the first run [default: all]")
    return parser


def _run(options: argparse.Namespace) -> int:
    tests_on_path()
    with an_engine() as engine, tempfile.TemporaryDirectory(prefix="sconify-bench-") as folder:
        bench = _prepare(engine, Path(folder), options.scale)
        print(machine(engine.client.version()["Version"]))
        print(f"native image: {bench.native.files} files, {megabytes(bench.native.size)} MB; taken: {' '.join(native.TAKEN)}")
        conversions = list(_conversions(bench, options))
        try:
            for number in range(options.repeat):
                print(f"round {number + 1} of {options.repeat}...", file=sys.stderr)
                bench.measure_reference()
                for conversion in conversions:
                    bench.measure(conversion, options.case.split(","))
        except KeyboardInterrupt:
            print("interrupted: this is what was measured until then", file=sys.stderr)
        finally:
            for conversion in conversions:
                conversion.forget()
        if bench.reference.runs:
            print(_report(bench, conversions))
    return 0


@contextmanager
def an_engine() -> Iterator[Any]:
    """An engine; what this benchmark made in it is removed."""
    from parts.engine import running_engine

    with running_engine() as engine:
        try:
            yield engine
        finally:
            engine.forget()
            engine.made.clear()
            engine.client.images.prune(filters={"dangling": True, "label": native.MADE_HERE})


def _prepare(engine: Any, work: Path, scale: float) -> Bench:
    from parts.debian import debian_rootfs_tar

    tar = debian_rootfs_tar()
    print("making the native image...", file=sys.stderr)
    made = native.make_folder(tar, work, scale=scale)
    stack = native.make_stack(engine, tar, made)
    image = engine.name("native")
    native.make_image(engine, stack, made, image)
    rootfs = engine.import_rootfs(tar, name=engine.name("tools"))
    return Bench(engine=engine, work=work, native=made, stack=stack, rootfs=rootfs, image=image)


def _conversions(bench: Bench, options: argparse.Namespace) -> Iterator[Conversion]:
    sources = {"docker": f"docker:{bench.image}", "dir": f"dir:{bench.native.folder}"}
    for source in options.source.split(","):
        for sink in options.sink.split(","):
            folder = bench.work / f"{source}-{sink}"
            folder.mkdir()
            to = f"docker:{bench.engine.name('encrypted')}" if sink == "docker" else f"oci:{folder}/out:1"
            yield Conversion(
                source=source, sink=sink, folder=folder, engine=bench.engine, from_image=sources[source], to_image=to
            )


def _report(bench: Bench, conversions: list[Conversion]) -> str:
    headings = ("case", "seconds", "ratio", "aim", "processor s", "peak MB", "all runs")
    rows = [_row("reference: docker build", bench.reference, bench.reference, None)]
    for conversion in conversions:
        for name, case in conversion.cases.items():
            if not case.runs:
                continue
            label = f"{conversion.source} to {conversion.sink}, {name}"
            rows.append(_row(label, case, bench.reference, AIMS.get((conversion.sink, name))))
    lines = [table(headings, rows), "", *_explained(CASES, ABOUT), ""]
    lines += [f"reference: {shlex.join(bench.reference_command())}, where Dockerfile is"]
    lines += [f"    {line}" for line in native.reference_dockerfile(bench.image, bench.rootfs).splitlines()]
    lines += [f"{conversion.source} to {conversion.sink}: {shlex.join(conversion.command())}" for conversion in conversions]
    lines += ["peak: the largest process of the command. The reference works in the engine, whose memory is not counted"]
    return "\n".join(lines)


def _row(label: str, case: Case, reference: Case, aim: float | None) -> tuple[str, ...]:
    runs = " ".join(f"{run.seconds:.3f}" for run in case.runs)
    ratio = f"{case.seconds / reference.seconds:.3f}"
    wanted = f"<= {aim}" if aim is not None else ""
    return (label, f"{case.seconds:.3f}", ratio, wanted, f"{case.processor:.3f}", megabytes(case.peak), runs)


def _explained(names: tuple[str, ...], about: Mapping[str, str]) -> list[str]:
    return [f"{name}: {about[name]}" for name in names]


if __name__ == "__main__":
    sys.exit(main())
