"""What is promised about the package: a reproducible runtime, and the README's commands."""

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load_hook():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_runtime_is_the_same_from_another_folder(tmp_path):
    """Equal sources give equal bytes, so that equal inputs give equal measurements on every machine."""
    hook = load_hook()
    source = ROOT / "sconify_tasks" / "runtime"
    built = []
    for folder in (tmp_path / "some where" / "else", tmp_path / "here"):
        shutil.copytree(source, folder / "sconify_tasks" / "runtime", ignore=shutil.ignore_patterns("bin"))
        built.append({path.name: path.read_bytes() for path in hook.compile_runtime(folder)})

    assert set(built[0]) == {"runtime-amd64", "runtime-arm64"}
    assert built[0] == built[1]


def test_the_build_depends_on_no_go_setting_of_the_machine(monkeypatch):
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("CGO_CFLAGS", "-O0")

    environment = load_hook().go_environment("amd64")

    assert environment["GOFLAGS"] == ""
    assert "CGO_CFLAGS" not in environment
    assert environment["GOPROXY"] == "off"


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_runtime_is_static(architecture):
    from sconify_tasks.elf import inspect

    facts = inspect(ROOT / "sconify_tasks" / "runtime" / "bin" / f"runtime-{architecture}")

    assert facts.static
    assert facts.stripped


def test_ci_calls_the_test_command_of_the_readme_to_the_letter():
    """The README's second command is what is tested: CI may make pip quieter, and nothing else."""
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^python3 -m venv .*pytest.*$", readme, re.MULTILINE).group()

    assert command in (ROOT / ".ci" / "run").read_text().replace("pip install -q ", "pip install ")


def build(target, source, into):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", into], cwd=source, check=True, capture_output=True
    )
    (made,) = into.iterdir()
    return made


def test_the_wheel_is_whole_and_the_same_from_the_tree_and_through_the_sdist(tmp_path):
    tree = tmp_path / "tree"
    left_out = shutil.ignore_patterns(".*cache", ".git", ".venv", "__pycache__", "bin", "build", "dist", "build-resources")
    shutil.copytree(ROOT, tree, ignore=left_out)
    sdist = build("sdist", tree, tmp_path / "sdist")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path / "unpacked"], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()

    direct = build("wheel", tree, tmp_path / "direct")
    through = build("wheel", unpacked, tmp_path / "through")

    assert direct.read_bytes() == through.read_bytes()
    with zipfile.ZipFile(direct) as wheel:
        names = set(wheel.namelist())
    assert {"sconify_cache/store.py", "sconify_dodo/cli.py", "sconify_tasks/graph.py"} <= names
    assert {f"sconify_tasks/runtime/bin/runtime-{architecture}" for architecture in ("amd64", "arm64")} <= names
