"""The runtime that stands at the paths of encrypted executables is one file, made once however many images have it."""

from __future__ import annotations

from build.small_image import Recorder, convert, world_of, write

from sconify_tasks import stub as stub_room
from sconify_tasks.stub import stub_of


def counting(monkeypatch):
    made = []
    real = stub_room.write_sconified
    monkeypatch.setattr(stub_room, "write_sconified", lambda *given: made.append(given[1]) or real(*given))
    return made


def test_it_is_made_once_for_many_images_and_again_where_it_is_damaged(native, place, monkeypatch):
    made = counting(monkeypatch)
    assert convert(native, place).code == 0
    assert len(made) == 1
    write(native / "app" / "secret", b"changed")
    assert convert(native, place).code == 0
    assert convert(native, place, to=f"oci:{place.folder}/other:1").code == 0
    assert len(made) == 1
    with world_of(place, Recorder()) as world:
        path = stub_of(world, "amd64")
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    clean = place.beside(place.folder / "clean")
    write(native / "app" / "secret", b"changed once more")
    assert convert(native, place).code == 0
    assert len(made) == 2
    assert convert(native, clean).code == 0
    assert clean.image_digest() == place.image_digest()


def test_an_image_without_encrypted_executables_has_none(native, place, monkeypatch):
    made = counting(monkeypatch)
    (native / "app" / "run").chmod(0o644)
    assert convert(native, place).code == 0
    assert made == []
