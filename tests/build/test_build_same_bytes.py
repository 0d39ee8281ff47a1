"""Law 1: the same inputs give the same bytes, wherever, however often, on however many threads, with and without a cache."""

from __future__ import annotations

import shutil

import pytest
from build.small_image import Place, convert, make_native, write

from sconify_tasks.image.validate import validate


def elsewhere(tmp_path, name: str) -> Place:
    (tmp_path / name).mkdir()
    return Place(folder=tmp_path / name)


def mrenclave(place: Place) -> str:
    (line,) = (line for line in place.session.read_text().splitlines() if "mrenclaves" in line)
    return line


@pytest.mark.parametrize("jobs", [1, 4])
def test_another_folder_user_and_number_of_threads_give_the_same_image_and_measurement(program, tmp_path, jobs):
    first = elsewhere(tmp_path, "first")
    assert convert(make_native(tmp_path / "native", program), first, jobs=1).code == 0
    second = first.beside(tmp_path / "second")
    (tmp_path / "far" / "away").mkdir(parents=True)
    assert convert(make_native(tmp_path / "far" / "away" / "copy", program), second, jobs=jobs).code == 0
    assert second.image_digest() == first.image_digest()
    assert mrenclave(second) == mrenclave(first)
    assert second.session.read_bytes() == first.session.read_bytes()


def test_another_cas_is_measured_and_changes_the_image(native, tmp_path):
    first, second = elsewhere(tmp_path, "first"), elsewhere(tmp_path, "second")
    convert(native, first)
    convert(native, second)
    assert mrenclave(second) != mrenclave(first)
    assert second.image_digest() != first.image_digest()


def test_ciphertext_does_not_depend_on_the_cas(native, tmp_path):
    first, second = elsewhere(tmp_path, "first"), elsewhere(tmp_path, "second")
    convert(native, first)
    convert(native, second)
    protected = 2  # copied, binary, protected, manifest
    assert second.layers()[protected].name == first.layers()[protected].name


def test_another_root_key_gives_other_ciphertext_and_another_namespace(native, tmp_path):
    first, second = elsewhere(tmp_path, "first"), elsewhere(tmp_path, "second")
    convert(native, first)
    convert(native, second, variables={"SCONIFY_ROOT_KEY": "5b" * 32})
    assert {path.name for path in first.layers()[2:]}.isdisjoint(path.name for path in second.layers()[2:])
    assert first.session.read_text().splitlines()[0] != second.session.read_text().splitlines()[0]


def test_another_key_epoch_gives_other_ciphertext(native, place):
    convert(native, place)
    before = place.layers()[2].name
    outcome = convert(native, place, key_epoch=1)
    assert place.layers()[2].name != before
    assert "encrypt" in outcome.ran


def test_an_emptied_cache_gives_the_same_image_again(native, place):
    convert(native, place)
    digest, session = place.image_digest(), place.session.read_bytes()
    shutil.rmtree(place.cache)
    shutil.rmtree(place.layout)
    assert convert(native, place).code == 0
    assert (place.image_digest(), place.session.read_bytes()) == (digest, session)


def edit(native):
    write(native / "app" / "secret", b"another length and content\n")
    write(native / "app" / "new", b"new\n" * 50_000)
    write(native / "app" / "sub" / "twin", (native / "app" / "new").read_bytes())
    (native / "app" / "run").rename(native / "app" / "renamed")
    (native / "app" / "link").symlink_to("secret")


def remove(native):
    shutil.rmtree(native / "app" / "sub")


def empty(native):
    write(native / "app" / "secret", b"")


def grow(native):
    write(native / "app" / "sub" / "other", b"x" * 65_536 * 3)


@pytest.mark.parametrize("change", [edit, remove, empty, grow])
def test_what_is_built_after_an_edit_equals_a_clean_build(native, tmp_path, change):
    first = elsewhere(tmp_path, "first")
    convert(native, first)
    clean = first.beside(tmp_path / "clean")
    change(native)
    assert convert(native, first).code == 0
    assert convert(native, clean).code == 0
    assert [path.name for path in first.layers()] == [path.name for path in clean.layers()]
    assert first.image_digest() == clean.image_digest()
    validate(first.layout, "small")


def test_unchanged_files_are_not_encrypted_again(native, place, monkeypatch):
    from sconify_tasks.steps import encrypt

    sealed: list[int] = []

    def counted(key, content):
        found = seal(key, content)
        sealed.append(found.size)
        return found

    seal = encrypt.seal_file
    monkeypatch.setattr(encrypt, "seal_file", counted)
    convert(native, place)
    assert len(sealed) == 3
    sealed.clear()
    write(native / "app" / "secret", b"changed")
    convert(native, place)
    assert sealed == [len(b"changed")]
