from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from build.conftest import native, place, program
from build.small_image import make_native
from faults.failing import Zygote, compile_faults
from faults.scenarios import Scenario, image_words, many_words, project_words, scenario
from parts.need import Need

__all__ = ["native", "place", "program"]


@pytest.fixture(scope="session")
def library(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faults.c, compiled."""
    return compile_faults(need("gcc"), tmp_path_factory.mktemp("faults") / "faults.so")


@pytest.fixture(scope="session")
def zygote(library: Path) -> Iterator[Zygote]:
    found = Zygote(library)
    yield found
    found.close()


@pytest.fixture(scope="module")
def image(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native image that is only read."""
    return make_native(tmp_path_factory.mktemp("image") / "native", program)


@pytest.fixture(scope="module")
def one_image(zygote: Zygote, image: Path) -> Iterator[Scenario]:
    with scenario(zygote, image, image_words(image)) as found:
        yield found


@pytest.fixture(scope="module")
def project(zygote: Zygote, image: Path) -> Iterator[Scenario]:
    with scenario(zygote, image, project_words(image, "-n", "1")) as found:
        yield found


@pytest.fixture(scope="module")
def many(zygote: Zygote, image: Path) -> Iterator[Scenario]:
    with scenario(zygote, image, many_words(image), processes=2) as found:
        yield found
