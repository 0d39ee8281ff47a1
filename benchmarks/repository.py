"""A repository of many small images as a company would keep it, and ninja's graph of the same files.

A root sconify.yaml with defaults and templates includes one file for each team; a team has twenty images, a native root file
system for each (five files and five folders) and a base that its images share. Each image is delivered into an OCI layout.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measuring import Run, Unavailable, installed, megabytes, tests_on_path, timed

TEAM = 20
_ROOT = """\
version: 1
project: benchmark
include: teams/*/sconify.yaml
defaults: {allow-debug-mode: true, disable-pie-check: true, binary: /bin/prog}
templates:
  service: {dir: [/app], plain: [/plain], env+: ["REGION=${REGION:-here}"]}
"""
_TEAM = "version: 1\ndefaults: {{base: 'oci:base:1', env+: [TEAM={team}]}}\nimages:\n"
_IMAGE = (
    "  image-{number}: {{extends: service, from: 'dir:native/{number}', to: 'oci:out/{number}:1', env+: [NUMBER={number}]}}\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """Where it lies and how large it is."""

    folder: Path
    images: int

    @property
    def project(self) -> Path:
        """The folder of the root's sconify.yaml."""
        return self.folder / "project"

    @property
    def environment(self) -> dict[str, str]:
        """No engine, and a home of the benchmark's own."""
        return {"HOME": str(self.folder / "home"), "PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nonexistent"}

    def team(self, number: int) -> Path:
        """The folder of the team that has an image."""
        return self.project / "teams" / f"{number // TEAM:03d}"

    def native(self, number: int) -> Path:
        """The native root file system of an image."""
        return self.team(number) / "native" / str(number)

    def layout(self, number: int) -> Path:
        """Where an image is delivered."""
        return self.team(number) / "out" / str(number)

    def resources(self, number: int) -> Path:
        """Where an image's session lies."""
        return self.project / "build-resources" / f"image-{number}"

    def doit(self, *words: str) -> Run:
        """`doit sconify`, measured."""
        return timed([installed("doit"), "sconify", *words], environment=self.environment, folder=self.project)


@contextmanager
def built_repository(keep: Path | None, images: int) -> Iterator[Repository]:
    """A repository that was built and has nothing left to do; in `keep` it stays for the next time, otherwise it goes."""
    with tempfile.TemporaryDirectory(prefix="sconify-benchmark-") as scratch:
        folder = (keep.absolute() if keep else Path(scratch)) / f"{images}-images"
        if (folder / "ninja").exists():
            repository = Repository(folder=folder, images=images)
            print(f"{images} images, built earlier in {folder}")
        else:
            from ninja_graph import make_graph

            repository = make_repository(folder, images)
            cold = repository.doit()
            figures = f"{cold.seconds:.1f} s, {cold.processor:.1f} processor s, {megabytes(cold.peak)} MB"
            print(f"{images} images: first build {figures}")
            make_graph(repository, steps_of_an_image())
        settle(repository)
        yield repository


def settle(repository: Repository) -> None:
    """Run until nothing is left, as after another version of the program."""
    while repository.doit().stderr:
        pass


def steps_of_an_image() -> int:
    """How many steps the graph has."""
    from sconify_tasks.graph import STEPS

    return len(STEPS)


def steps_that_ran(run: Run) -> list[tuple[str, str]]:
    """Image and step of what a run says it did."""
    return re.findall(r"^(\S+): (\w+) done", run.stderr, re.MULTILINE)


def make_repository(folder: Path, images: int) -> Repository:
    """Write the project files and the native images. Nothing is built."""
    tests_on_path()
    from build.small_image import compile_program, make_native, write

    gcc = shutil.which("gcc")
    if gcc is None:
        raise Unavailable("gcc is missing: it compiles the native image's program")
    folder.mkdir(parents=True, exist_ok=True)
    program = compile_program(gcc, folder / "prog", "-static", "-s")
    repository = Repository(folder=folder, images=images)
    repository.project.mkdir()
    (repository.project / "sconify.yaml").write_text(_ROOT)
    for first in range(0, images, TEAM):
        team = repository.team(first)
        write_base(team, f"of team {team.name}\n".encode())
        numbers = range(first, min(first + TEAM, images))
        for number in numbers:
            make_native(repository.native(number), program)
            write(repository.native(number) / "app" / "secret", f"secret of {number}\n".encode())
        (team / "sconify.yaml").write_text(
            _TEAM.format(team=team.name) + "".join(_IMAGE.format(number=number) for number in numbers)
        )
    return repository


def write_base(team: Path, content: bytes) -> None:
    """Deliver a team's base, one layer with one file, into its layout; in the place of an earlier one."""
    from sconify_tasks.image.model import BuiltImage, Layer, Sha256
    from sconify_tasks.image.scratch import ScratchSource
    from sconify_tasks.image.sink_oci import OciSink

    team.mkdir(parents=True, exist_ok=True)
    layer = team / "base.tar"
    with tarfile.open(layer, "w") as tar:
        entry = tarfile.TarInfo("etc/base")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    digest = Sha256("sha256:" + hashlib.sha256(layer.read_bytes()).hexdigest())
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    layers = (Layer(diff_id=digest, size=layer.stat().st_size, path=layer),)
    OciSink(team / "base").deliver(
        BuiltImage(base_diff_ids=(), layers=layers, config=json.dumps(config).encode()), ScratchSource(), "1"
    )
