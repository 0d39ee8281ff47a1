"""A tool that a test can't do without. Missing ones skip loudly; where all tests must run, they fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

Need = Callable[[str], str]
REQUIRE_ALL = "SCONIFY_TESTS_REQUIRE_ALL"


def missing(what: str) -> None:
    """End the test: it can't run without `what`."""
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{what} is missing, and {REQUIRE_ALL}=1 says that every test must run")
    pytest.skip(f"NOT TESTED HERE: {what} is missing")


def find_tool(name: str) -> str:
    """Return the path of a program, or end the test."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        missing(f"the program {name}")
    assert found is not None
    return found
