"""Every reader of foreign bytes, fed with damaged ones: no crash, no hang, bounded memory. `nightly.py` looks for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

TESTS = Path(__file__).parents[1]
MOST = 60


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_damaged_input_is_read_or_refused_within_bounds(name):
    command = [sys.executable, "-m", "fuzz.one_target", name, str(MOST), "1"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
