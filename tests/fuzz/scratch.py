"""What the fuzzed readers are given: the vectors of this project's formats, and files of any bytes."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]


def vectors(name: str, field: str) -> list[bytes]:
    cases = json.loads((TESTS / "vectors" / f"{name}.json").read_text())["cases"]
    return [bytes.fromhex(case[field]) for case in cases]


@cache
def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="sconify-fuzz-"))


def stored(data: bytes, name: str) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path
