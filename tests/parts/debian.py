"""A small Debian root file system with Python, made by mmdebstrap once and kept in a cache folder."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

from parts.need import find_tool, missing

CACHE = "SCONIFY_TESTS_CACHE"
_PACKAGES = "python3,coreutils,dash,base-files"
_SUITE = "bookworm"


def debian_rootfs_tar() -> Path:
    """Return the tar; made at the first call on a machine (about 10 s and 80 MB). Maintainer scripts have not run in it."""
    return make_rootfs(f"{_SUITE}-python", _PACKAGES)


def make_rootfs(name: str, packages: str, *, variant: str = "extract", suite: str = _SUITE) -> Path:
    """Make another one, kept under `name`. Without a mirror of its own, mmdebstrap uses this machine's apt sources."""
    folder = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "sconify-tests")
    folder.mkdir(parents=True, exist_ok=True)
    tar = folder / f"{name}.tar"
    with (folder / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of pytest-xdist make it once
        if not tar.exists():
            mmdebstrap = find_tool("mmdebstrap")
            if os.geteuid() != 0:
                missing(f"root, to run mmdebstrap (or a ready {tar})")
            part = folder / f".{name}.part.tar"
            command = [mmdebstrap, f"--variant={variant}", f"--include={packages}", "--quiet", suite, str(part)]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode != 0:
                part.unlink(missing_ok=True)
                missing(f"a package mirror for mmdebstrap: {made.stderr[-400:]}")
            part.replace(tar)
    return tar
