from __future__ import annotations

import pytest
from build.conftest import native, place, program
from build.small_image import Place, convert, make_native
from signing.conftest import key, other_key

__all__ = ["key", "native", "other_key", "place", "program"]


@pytest.fixture(scope="session")
def made(program, tmp_path_factory):
    """A place with two images of one program: `small`, and `other` with more heap, another SVN and another user's config."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "place").mkdir()
    place = Place(folder=folder / "place")
    native = make_native(folder / "native", program)
    assert convert(native, place).code == 0
    given = {"to": f"oci:{place.folder}/other:small", "heap": 2 << 30, "isvsvn": 3}
    assert convert(native, place, **given).code == 0
    return place
