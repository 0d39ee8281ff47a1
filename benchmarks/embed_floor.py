"""What embedding can't do without: the processor seconds of one pass over some bytes, for each kind of pass."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

CORES = 2
# Passes over all bytes. Identity: BLAKE3 of each file and SHA-256 of its chunks, in one read. The layer: SHA-256 is its
# diff id, BLAKE3 its name in the store. The last check reads the image again.
NEEDED = {
    "embed": {"read": 1, "blake3": 1, "sha256": 1, "copy": 1},
    "whole build": {"read": 4, "blake3": 2, "sha256": 3, "copy": 1},
}
_BLOCK = 256 << 10
_ROUNDS = 3


def passes(source: Path, target: Path) -> dict[str, float]:
    """Seconds for each kind of pass over a file that is in the page cache; the fastest of some rounds."""
    found = {}
    for name, run in _kinds(source, target).items():
        times = []
        for _ in range(_ROUNDS):
            begun = time.process_time()
            run()
            times.append(time.process_time() - begun)
            target.unlink(missing_ok=True)
        found[name] = min(times)
    return found


def _kinds(source: Path, target: Path) -> dict[str, Callable[[], None]]:
    buffer = memoryview(bytearray(os.urandom(_BLOCK)))
    blocks = range(source.stat().st_size // _BLOCK)

    def hashed(hasher: Any) -> None:
        for _ in blocks:
            hasher.update(buffer)

    def read() -> None:
        with source.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def copy() -> None:
        with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
            while os.copy_file_range(file.fileno(), out.fileno(), _BLOCK):
                pass

    return {
        "read": read,
        "sha256": lambda: hashed(hashlib.sha256()),
        "blake3": lambda: hashed(blake3()),
        "copy": copy,
    }
