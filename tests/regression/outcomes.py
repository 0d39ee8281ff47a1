"""What became of CPython's tests in a container, and how two runs of them differ."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "regression.md"
# Of a module natively, in seconds; under the shield it may take ten times as long as that took, and a minute in any case.
_PATIENCE = 900
_FACTOR = 10
_LEAST = 60
_ROW = re.compile(r"\| `(?P<test>[^`]+)` \| (?P<native>\w+) \| (?P<shielded>\w+) \| (?P<who>\w+) \| (?P<why>[^|]+) \|")


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Difference:
    """One test, or a module as a whole, that ends differently under the shield. `who` is `root`, `user` or `both`."""

    test: str
    native: str
    shielded: str
    who: str

    def covers(self, other: Difference) -> bool:
        """Whether a row of the document speaks of what was seen."""
        return (
            fnmatchcase(other.test, self.test)
            and (self.native, self.shielded) == (other.native, other.shielded)
            and self.who in (other.who, "both")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a module ended: `ended` is the exit status as text, or that it did not end."""

    ended: str
    tests: dict[str, str]
    said: str
    seconds: float


def fair(before: Mapping[str, Outcome]) -> dict[str, float]:
    """How long each module may take under the shield, by how long it took natively."""
    return {module: max(_LEAST, _FACTOR * outcome.seconds) for module, outcome in before.items()}


def patient(modules: Iterable[str]) -> dict[str, float]:
    """How long each module may take natively."""
    return dict.fromkeys(modules, _PATIENCE)


def run_modules(host: str, image: str, patience: Mapping[str, float], jobs: int, options: Iterable[str]) -> dict[str, Outcome]:
    """Run modules in one container, some at once; a RuntimeError if the container itself failed."""
    order = json.dumps({"modules": list(patience), "jobs": jobs, "patience": patience})
    name = f"sconify-test-{uuid.uuid4().hex[:12]}"
    command = ["docker", "-H", host, "run", "-i", "--rm", "--name", name, "--shm-size=256m", *options, image]
    end = sum(patience.values())
    try:
        done = subprocess.run(command, input=order, capture_output=True, text=True, timeout=end, check=False)
    finally:
        subprocess.run(["docker", "-H", host, "rm", "-f", name], capture_output=True, check=False)
    found = dict(_outcome(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{"))
    if done.returncode != 0 or set(found) != set(patience):
        raise RuntimeError(f"{image} ended with {done.returncode} after {len(found)} modules: {done.stderr[-2000:]}")
    return found


def _outcome(told: dict[str, Any]) -> tuple[str, Outcome]:
    return told["module"], Outcome(ended=str(told["status"]), tests=told["tests"], said=told["said"], seconds=told["seconds"])


def differences(native: dict[str, Outcome], shielded: dict[str, Outcome], who: str) -> set[Difference]:
    """Every test that ended otherwise; a module's own status counts where no test of it explains that."""
    found = set()
    for module, before in native.items():
        after = shielded[module]
        tests = {
            Difference(test=test, native=before.tests.get(test, "absent"), shielded=after.tests.get(test, "absent"), who=who)
            for test in before.tests | after.tests
            if before.tests.get(test) != after.tests.get(test)
        }
        if before.ended != after.ended and not any("failed" in (one.native, one.shielded) for one in tests):
            tests.add(Difference(test=module, native=f"status{before.ended}", shielded=f"status{after.ended}", who=who))
        found |= tests
    return found


def documented() -> list[Difference]:
    """The rows of docs/regression.md."""
    found = [
        Difference(test=row["test"], native=row["native"], shielded=row["shielded"], who=row["who"])
        for row in _ROW.finditer(DOCUMENT.read_text())
    ]
    assert found, DOCUMENT
    return found


def module_of(test: str) -> str:
    """`test_io` of `test.test_io.FileTests.test_read`; `test_ctypes` of `ctypes.test.test_find.…`."""
    parts = test.split(".")
    if parts[0] == "test" and len(parts) > 1:
        return parts[1]
    return parts[0] if parts[0].startswith("test_") else f"test_{parts[0]}"
