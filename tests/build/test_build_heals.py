"""What was delivered or cached and is gone or damaged is made again, in the next run, without a hand's turn."""

from __future__ import annotations

import shutil
import sqlite3

import pytest
from build.small_image import Place, Recorder, convert, world_of, write

from sconify_tasks.graph import STEPS as ALL
from sconify_tasks.image.validate import validate
from sconify_tasks.stub import stub_of


def damage(path) -> None:
    """Flip a byte, and leave everything else of the file as it was."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o600)
    # Not in place: the sinks may share the inode.
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)


def blobs(place: Place) -> list:
    return sorted(path for path in (place.cache / "store" / "blobs").rglob("*") if path.is_file())


@pytest.fixture
def built(native, place):
    assert convert(native, place).code == 0
    return place


def test_a_deleted_image_is_delivered_again(native, built):
    digest = built.image_digest()
    shutil.rmtree(built.layout)
    assert convert(native, built).ran == {"deliver"}
    assert built.image_digest() == digest


def test_a_deleted_layer_of_the_image_is_delivered_again(native, built):
    built.layers()[2].unlink()
    assert convert(native, built).ran == {"deliver"}
    assert built.layers()[2].exists()


def test_a_truncated_layer_of_the_image_is_delivered_again(native, built):
    layer = built.layers()[2]
    content = layer.read_bytes()
    layer.unlink()
    layer.write_bytes(content[:-1])
    assert convert(native, built).ran == {"deliver"}
    assert layer.read_bytes() == content


def test_a_damaged_layer_of_the_right_length_does_not_survive_the_next_delivery(native, built):
    damage(built.layers()[2])
    (built.layout / "index.json").unlink()
    assert convert(native, built).ran == {"deliver"}
    validate(built.layout, "small")


def test_a_delivery_over_the_same_layers_leaves_no_scraps(native, built):
    (built.layout / "index.json").unlink()
    assert convert(native, built).ran == {"deliver"}
    assert list(built.layout.rglob(".sconify-*")) == []


def test_a_deleted_session_file_is_written_again(native, built):
    text = built.session.read_bytes()
    built.session.unlink()
    assert convert(native, built).ran == {"resources"}
    assert built.session.read_bytes() == text
    assert built.session.stat().st_mode & 0o777 == 0o600


def test_a_changed_session_file_is_written_again(native, built):
    text = built.session.read_bytes()
    built.session.write_bytes(text + b"\n# edited")
    assert convert(native, built).ran == {"resources"}
    assert built.session.read_bytes() == text


def test_a_truncated_layer_beside_the_dockerfile_is_written_again(native, built):
    layer = next(built.resources.glob("layer-2-*.tar"))
    content = layer.read_bytes()
    layer.unlink()
    layer.write_bytes(content[:-1])
    assert convert(native, built).ran == {"resources"}
    assert layer.read_bytes() == content


def test_a_changed_dockerfile_is_written_again(native, built):
    (built.resources / "Dockerfile").write_text("FROM scratch\n")
    assert convert(native, built).ran == {"resources"}
    assert "ENTRYPOINT" in (built.resources / "Dockerfile").read_text()


def test_a_session_that_the_cas_lost_is_uploaded_again(native, built):
    with sqlite3.connect(built.state / "cas" / "sessions.sqlite") as database:
        database.execute("DELETE FROM versions")
    assert convert(native, built).ran == {"upload"}
    with sqlite3.connect(built.state / "cas" / "sessions.sqlite") as database:
        assert database.execute("SELECT count(*) FROM versions WHERE name LIKE '%/%'").fetchone() == (1,)


def test_every_single_lost_blob_is_made_again_and_nothing_else_changes(native, built):
    digest, session, every = built.image_digest(), built.session.read_bytes(), blobs(built)
    assert len(every) > 10
    with world_of(built, Recorder()) as world:
        stub = stub_of(world, "amd64")  # of no step: it is made when one needs it
    for blob in sorted({*every} - {stub}):
        content = blob.read_bytes()
        blob.unlink()
        outcome = convert(native, built)
        assert outcome.code == 0
        assert len(outcome.ran) <= 2, (blob, outcome.ran)
        assert blob.read_bytes() == content
    assert (built.image_digest(), built.session.read_bytes()) == (digest, session)


def test_every_single_damaged_blob_is_made_again_when_it_is_needed(native, built):
    """All sinks lost the image, so every blob that the last steps read is needed, and each in turn is damaged."""
    digest, session, every = built.image_digest(), built.session.read_bytes(), blobs(built)
    for blob in every:
        damage(blob)
        shutil.rmtree(built.layout)
        shutil.rmtree(built.resources)
        outcome = convert(native, built, jobs=2)
        assert outcome.code == 0, (blob, outcome.failures)
        assert (built.image_digest(), built.session.read_bytes()) == (digest, session)


def test_a_build_after_an_edit_gets_over_every_damaged_blob(native, built, tmp_path):
    for number, blob in enumerate(blobs(built)):
        if not blob.exists():
            continue
        damage(blob)
        write(native / "app" / "secret", b"edit %d" % number)
        outcome = convert(native, built)
        assert outcome.code == 0, (blob, outcome.failures)
    clean = built.beside(tmp_path / "clean")
    assert convert(native, clean).code == 0
    assert built.image_digest() == clean.image_digest()


def test_an_emptied_store_with_its_records_is_filled_again(native, built):
    digest = built.image_digest()
    shutil.rmtree(built.cache / "store")
    outcome = convert(native, built)
    assert outcome.code == 0
    assert built.image_digest() == digest
    assert outcome.ran == {step.name for step in ALL} - {"cas", "deliver", "resources", "upload"}


def test_a_damaged_action_cache_is_a_clear_error_or_a_clean_build(native, built):
    file = built.cache / "actions" / "cache.db"
    file.write_bytes(b"this is no database" * 1000)
    outcome = convert_or_error(native, built)
    assert outcome == "built" or str(file) in outcome


def convert_or_error(native, place) -> str:
    from sconify_tasks.errors import SconifyError

    try:
        return "built" if convert(native, place).code == 0 else "failed"
    except SconifyError as error:
        return str(error)
