"""A real doit, in a process of its own, that finds our plugins by the entry points that pyproject.toml declares."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def doit(tmp_path):
    """Run doit in `tmp_path` on the dodo.py that lies there."""
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]
    plugin = tmp_path / "plugins" / "sconify_entry_points-0.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: sconify-entry-points\nVersion: 0\n")
    lines = [f"[{group}]\nsconify = {declared[group]['sconify']}\n" for group in ("doit.BACKEND", "doit.REPORTER")]
    (plugin / "entry_points.txt").write_text("\n".join(lines))
    path = [str(plugin.parent), *(part for part in sys.path if part)]

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "doit", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)} | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
