"""Disks that tests may fill and make read-only."""

import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("tmpfs can't be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)
