from __future__ import annotations

from pathlib import Path

import pytest
from build.small_image import Place, compile_program, make_native
from parts.need import Need


@pytest.fixture(scope="session")
def program(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static ELF program."""
    return compile_program(need("gcc"), tmp_path_factory.mktemp("program") / "prog", "-static")


@pytest.fixture
def native(program: Path, tmp_path: Path) -> Path:
    return make_native(tmp_path / "native", program)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "place").mkdir()
    return Place(folder=tmp_path / "place")
