from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from build.conftest import native, place, program
from build.small_image import Place, make_native
from faults.failing import HERE, Zygote

__all__ = ["native", "place", "program"]


@pytest.fixture(scope="session")
def library(need, tmp_path_factory) -> Path:
    """faults.c, compiled."""
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    words = [need("gcc"), "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", built, HERE / "faults.c", "-ldl"]
    subprocess.run(words, check=True)
    return built


@pytest.fixture(scope="session")
def zygote(library):
    found = Zygote(library)
    yield found
    found.close()


@pytest.fixture(scope="module")
def image(program, tmp_path_factory) -> Path:
    """A native image that is only read."""
    return make_native(tmp_path_factory.mktemp("image") / "native", program)


@pytest.fixture(scope="module")
def good(zygote, image, tmp_path_factory) -> Place:
    """A place where all went well."""
    folder = tmp_path_factory.mktemp("good") / "place"
    folder.mkdir()
    found = Place(folder=folder)
    ended = zygote.run(found, image)
    assert ended.code == 0, ended.stderr
    return found
