"""A repository of many small images as a company would keep it, and ninja's graph of the same files.

A root sconify.yaml with defaults and templates includes one file for each team; a team has twenty images, a native root file
system for each (five files and five folders) and a base that its images share. Each image is delivered into an OCI layout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from measuring import Run, Unavailable, installed, tests_on_path, timed

TEAM = 20
_ROOT = """\
version: 1
project: benchmark
include: teams/*/sconify.yaml
defaults: {allow-debug-mode: true, disable-pie-check: true, binary: /bin/prog}
templates:
  service: {dir: [/app], plain: [/plain], env: ["REGION=${REGION:-here}"]}
"""
_TEAM = "version: 1\ndefaults: {{base: 'dir:base', env+: [TEAM={team}]}}\nimages:\n"
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

    def said(self, *words: str) -> str:
        """What `doit sconify` says on stderr."""
        command = [installed("doit"), "sconify", *words]
        return subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=True
        ).stderr


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
        write(team / "base" / "etc" / "base", f"of team {team.name}\n".encode())
        (team / "base.json").write_text(json.dumps({"architecture": "amd64", "os": "linux", "config": {}}))
        numbers = range(first, min(first + TEAM, images))
        for number in numbers:
            make_native(repository.native(number), program)
            write(repository.native(number) / "app" / "secret", f"secret of {number}\n".encode())
        (team / "sconify.yaml").write_text(
            _TEAM.format(team=team.name) + "".join(_IMAGE.format(number=number) for number in numbers)
        )
    return repository
