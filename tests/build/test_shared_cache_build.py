"""Two machines with one root key and a shared folder: the second runs only what is secret, and gets the same bytes."""

from __future__ import annotations

import pytest
from build.small_image import OTHER, ROOT_KEY, SECRET, convert, write

from sconify_tasks.graph import STEPS

PUBLIC = {step.name for step in STEPS if step.public}


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def places(native, place, shared, tmp_path):
    """Two machines of one team: the CAS, whose key is an input, is the same."""
    assert convert(native, place, variables={"SCONIFY_SHARED_CACHE": str(tmp_path / "shared")}).code == 0
    return place, place.beside(tmp_path / "other machine")


def blobs(shared):
    return list(shared.glob("blobs/*/*"))


def with_shared(shared):
    return {"SCONIFY_SHARED_CACHE": str(shared)}


def test_there_are_public_steps_and_each_is_given_out(native, places, shared):
    assert {"sign", "sconify", "image"} <= PUBLIC
    assert len(list(shared.glob("actions/*/*"))) == len(PUBLIC)


def test_the_second_machine_runs_only_what_is_secret(native, places, shared):
    first, second = places
    outcome = convert(native, second, variables=with_shared(shared))
    assert outcome.code == 0
    assert outcome.ran == {step.name for step in STEPS} - PUBLIC
    assert second.image_digest() == first.image_digest()
    assert outcome.warnings == []
    again = convert(native, second, variables=with_shared(shared))
    assert again.ran == set()


def test_a_machine_with_another_root_key_or_none_of_the_cache_gains_nothing(native, places, shared, tmp_path):
    first, _ = places
    stranger = first.beside(tmp_path / "stranger")
    outcome = convert(native, stranger, variables=with_shared(shared) | {"SCONIFY_ROOT_KEY": "77" * 32})
    assert outcome.code == 0
    assert outcome.ran == {step.name for step in STEPS}
    alone = first.beside(tmp_path / "alone")
    assert convert(native, alone).ran == {step.name for step in STEPS}
    assert alone.image_digest() == first.image_digest()


def test_nothing_secret_lies_in_the_shared_folder(native, places, shared):
    for path in shared.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (
                SECRET[:30],
                OTHER[:20],
                b"marker-of-the-native-environment",
                ROOT_KEY.encode(),
                bytes.fromhex(ROOT_KEY),
            ):
                assert secret not in content, path
    private = {
        blob.name
        for place in places
        for blob in (place.cache / "store" / "blobs").rglob("*")
        if blob.is_file() and not blob.stat().st_mode & 4
    }
    assert private
    assert not private & {path.name for path in blobs(shared)}


def damage(kind, shared):
    for path in [*blobs(shared), *shared.glob("actions/*/*")]:
        content = path.read_bytes()
        path.unlink()
        if kind == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif kind == "poisoned":
            path.write_bytes(bytes(len(content)))
        elif kind == "blobs only" and path.parts[-3] == "actions":
            path.write_bytes(content)


@pytest.mark.parametrize("kind", ["truncated", "poisoned", "emptied", "blobs only"])
def test_a_damaged_shared_cache_only_misses_and_is_mended(native, places, shared, tmp_path, kind):
    first, second = places
    damage(kind, shared)
    outcome = convert(native, second, variables=with_shared(shared))
    assert outcome.code == 0
    assert outcome.ran == {step.name for step in STEPS}
    assert second.image_digest() == first.image_digest()
    third = first.beside(tmp_path / "third")
    assert convert(native, third, variables=with_shared(shared)).ran == {step.name for step in STEPS} - PUBLIC


def test_a_changed_file_is_built_as_anywhere_else(native, places, shared, tmp_path):
    first, second = places
    write(native / "app" / "secret", b"changed" + SECRET)
    assert convert(native, second, variables=with_shared(shared)).code == 0
    clean = first.beside(tmp_path / "clean")
    assert convert(native, clean).code == 0
    assert clean.image_digest() == second.image_digest()
