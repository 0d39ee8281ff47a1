"""The runtime, compiled once, and trees to run it in."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from parts.need import missing
from runtime.fake_cas import FakeCas, FakeLas
from runtime.shielded import PYTHON, Tree, closure_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def runtime_binary() -> Path:
    """Compile with the wheel's own hook; the compile cache makes a second time cheap."""
    sys.path.insert(0, str(ROOT))
    try:
        from hatch_build import compile_one
    finally:
        sys.path.remove(str(ROOT))
    out = Path(tempfile.gettempdir()) / f"sconify-test-runtime-{os.getuid()}"
    out.mkdir(exist_ok=True, mode=0o755)
    binary = out / "runtime-amd64"
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        compile_one(ROOT, "amd64", binary)
    return binary


@pytest.fixture(scope="session")
def python_closure() -> list[str]:
    return closure_of(PYTHON)


@pytest.fixture(scope="session")
def services() -> tuple[FakeCas, FakeLas]:
    return FakeCas(), FakeLas()


@pytest.fixture
def tree(
    tmp_path: Path, runtime_binary: Path, python_closure: list[str], services: tuple[FakeCas, FakeLas]
) -> Iterator[Callable[..., Tree]]:
    """Make trees; `/app` is encrypted and Python the program unless told otherwise."""
    if os.geteuid() != 0:
        missing("root: the tests mount an overlay to run programs in")
    cas, las = services
    cas.service, cas.refusal = {}, None
    count = 0

    def make(**options: Any) -> Tree:
        nonlocal count
        count += 1
        defaults: dict[str, Any] = {
            "regions": {"/app": "encrypted"},
            "closure": python_closure,
            "command": ["python3", "-B", "/app/main.py"],
            "environment": {"PATH": "/usr/local/bin:/usr/bin:/bin"},
        }
        cas.service = {}
        return Tree(folder=tmp_path / f"tree{count}", runtime=runtime_binary, cas=cas, las=las, **(defaults | options))

    yield make
    cas.service, cas.refusal = {}, None


@pytest.fixture
def run_python(tree: Callable[..., Tree]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a protected Python program; `prepare` changes the native tree, `tamper` the sconified one."""

    def run(
        source: str,
        *,
        prepare: Callable[[Tree], None] | None = None,
        tamper: Callable[[Tree], None] | None = None,
        env: dict[str, str] | None = None,
        uid: int = 0,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        made = tree(**options)
        made.put("/app/main.py", source)
        made.put("/app/secret.txt", "top secret\n")
        if prepare:
            prepare(made)
        made.convert()
        if tamper:
            tamper(made)
        return made.run(env=env, uid=uid)

    return run


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile a C program: `compiled(source, "-static", compiler="musl-gcc")`."""
    folder = tmp_path_factory.mktemp("compiled")
    count = 0

    def compile_(source: str, *flags: str, compiler: str = "gcc") -> Path:
        nonlocal count
        count += 1
        out = folder / f"program{count}"
        (folder / f"{count}.c").write_text(source)
        subprocess.run([compiler, "-O1", "-w", "-o", str(out), str(folder / f"{count}.c"), *flags], check=True)
        return out

    return compile_
