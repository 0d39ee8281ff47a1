"""What another machine made is said to be taken over from the shared cache, and stays there until a build wants it."""

from __future__ import annotations

import pytest
from build.small_image import convert, snapshot
from explain.explained import look

from sconify_tasks.graph import STEPS

PUBLIC = {step.name for step in STEPS if step.public}


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


def states(explained) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in explained.values():
        found.setdefault(one.state, set()).add(one.step)
    return found


def test_what_lies_in_the_shared_cache_is_said_to_be_there_and_nothing_is_copied(native, place, shared, tmp_path):
    variables = {"SCONIFY_SHARED_CACHE": str(shared)}
    assert convert(native, place).code == 0
    other = place.beside(tmp_path / "other machine")
    assert convert(native, other, variables=variables, heap=2 << 30).code == 0

    before = snapshot(place.cache / "store", shared)
    found = look(native, place, variables=variables, heap=2 << 30)
    assert {"sign", "sconify", "image"} <= states(found)["shared"] <= PUBLIC
    assert "--heap: 1G -> 2G" in found["sign"].reasons
    assert snapshot(place.cache / "store", shared) == before
    assert "shared" not in states(look(native, place, heap=2 << 30))

    outcome = convert(native, place, variables=variables, heap=2 << 30)
    assert outcome.ran == states(found)["run"] | states(found).get("waits", set())


def test_what_is_not_whole_there_or_not_of_this_project_is_not_said_to_be_there(native, place, shared, tmp_path):
    variables = {"SCONIFY_SHARED_CACHE": str(shared)}
    assert convert(native, place).code == 0
    assert convert(native, place.beside(tmp_path / "other machine"), variables=variables, heap=2 << 30).code == 0
    for blob in shared.glob("blobs/*/*"):
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes() + b"more")
    found = look(native, place, variables=variables, heap=2 << 30)
    assert found["sign"].state == "run"
    for record in shared.glob("actions/*/*"):
        record.chmod(0o644)
        record.write_bytes(record.read_bytes().replace(b"sign", b"sing"))
    assert "shared" not in states(look(native, place, variables=variables, heap=2 << 30))
