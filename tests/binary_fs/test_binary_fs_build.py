"""Builds with --binary-fs: what is embedded, what a change costs, and that the result depends on nothing else."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml
from build.small_image import OTHER, PLAIN, SECRET, convert, write
from msgspec.structs import replace

from sconify_dodo.plan import plan
from sconify_tasks.binary_fs.reading import open_section
from sconify_tasks.errors import UsageError
from sconify_tasks.events import StepFinished
from sconify_tasks.image.search import search_layers
from sconify_tasks.option_checks import check
from sconify_tasks.options import Options
from sconify_tasks.sconified import FILE_SYSTEM, read_sconified

GIVEN = {"binary-fs": True, "dir": (), "plain": (), "fs-dir": ("/app",)}


def members(place):
    from sconify_tasks.image.model import Layer, Sha256

    layers = [Layer(diff_id=Sha256("sha256:" + "0" * 64), size=0, path=path) for path in place.layers()]
    return [(found.entry, found.content.read() if found.content else b"") for found in search_layers(layers)]


def embedded(place, folder):
    """The index of the built image's binary, and every embedded file's content."""
    (content,) = (content for entry, content in members(place) if entry.path == b"/bin/prog")
    path = folder / "sconified"
    path.write_bytes(content)
    sconified = read_sconified(path)
    at = sconified.sections[FILE_SYSTEM]
    with path.open("rb") as file:
        root = bytes.fromhex(sconified.config.binary_fs)
        section = open_section(file, offset=at.offset, size=at.size, root=root)
        contents = {name: b"".join(section.read(extent)) for name, extent in section.index.extents.items()}
    return section.index, contents


def counted(outcome, what):
    """A figure of the step that selects."""
    (event,) = (event for event in outcome.events if isinstance(event, StepFinished) and event.step == "embedded")
    return event.counts.get(what)


def steps():
    return {step.name for step in plan(Options.of({"from": "a", "to": "b", "binary": "/b", "binary-fs": True}))}


def test_files_are_in_the_binary_with_their_metadata_and_in_no_layer(native, place, tmp_path):
    (native / "app" / "empty").mkdir()
    (native / "app" / "link").symlink_to("secret")
    (native / "app" / "secret").chmod(0o640)
    outcome = convert(native, place, **GIVEN)
    assert outcome.code == 0
    assert set(outcome.started) == steps()
    index, contents = embedded(place, tmp_path)
    assert contents == {b"/app/secret": SECRET, b"/app/sub/other": OTHER, b"/app/run": b"#!/bin/true\n"}
    entries = {entry.path: entry.meta for entry in index.manifest.entries}
    assert entries[b"/app/secret"].mode == 0o640
    assert entries[b"/app/secret"].uid == os.getuid()
    assert entries[b"/app/secret"].mtime == 1_700_000_000 * 10**9
    assert entries[b"/app/link"].target == b"secret"
    assert b"/app/empty" in entries
    assert {b"/tmp", b"/var/tmp"} <= entries.keys()
    found = members(place)
    assert not any(SECRET in content or OTHER in content for entry, content in found if entry.path != b"/bin/prog")
    assert {entry.path for entry, _ in found} >= {b"/app/empty", b"/app/link", b"/app/run", b"/fspf/stub"}
    assert b"/app/secret" not in {entry.path for entry, _ in found}


def test_the_session_has_no_key_for_files_and_the_measurement_is_another_with_other_content(native, place):
    convert(native, place, **GIVEN)
    (service,) = yaml.safe_load(place.session.read_text())["services"]
    assert not {name for name in service if name.startswith("fspf")}
    write(native / "app" / "secret", SECRET.replace(b"4", b"5"))
    convert(native, place, **GIVEN)
    (other,) = yaml.safe_load(place.session.read_text())["services"]
    assert service["mrenclaves"] != other["mrenclaves"]
    assert {**service, "mrenclaves": []} == {**other, "mrenclaves": []}


def test_after_one_changed_file_only_that_file_is_read_for_the_section_and_the_result_is_a_clean_builds(
    native, place, tmp_path, monkeypatch
):
    from sconify_tasks.binary_fs.filling import Filling

    staged = []
    read = Filling._read_missing
    monkeypatch.setattr(Filling, "_read_missing", lambda self, *given: (staged.extend(given[-1]), read(self, *given))[1])
    for number in range(20):
        write(native / "app" / f"file{number}", bytes([number]) * (number * 20_000))
    assert counted(convert(native, place, **GIVEN), "files read") == 23
    assert len(staged) == 23
    staged.clear()
    write(native / "app" / "file7", b"changed" * 30_000)
    outcome = convert(native, place, **GIVEN)
    assert (outcome.code, counted(outcome, "files read")) == (0, 1)
    assert staged == [b"/app/file7"]
    _, contents = embedded(place, tmp_path)
    assert contents[b"/app/file7"] == b"changed" * 30_000
    assert contents[b"/app/file19"] == bytes([19]) * 380_000
    clean = place.beside(tmp_path / "clean")
    assert convert(native, clean, **GIVEN).code == 0
    assert clean.image_digest() == place.image_digest()


def test_a_second_run_runs_nothing_and_another_place_of_the_same_user_gives_the_same_image(native, place, tmp_path):
    convert(native, place, **GIVEN)
    assert convert(native, place, **GIVEN).started == []
    shutil.rmtree(place.cache)
    assert convert(native, place, jobs=4, **GIVEN).code == 0
    other = place.beside(tmp_path / "other")
    convert(native, other, **GIVEN)
    assert other.image_digest() == place.image_digest()


def test_shared_objects_of_the_whole_image_are_embedded_unless_told_otherwise(native, place, tmp_path):
    write(native / "opt" / "plugins" / "libplugin.so.1", b"\x7fELF not really")
    write(native / "opt" / "plugins" / "notes.txt", b"notes")
    convert(native, place, **GIVEN)
    assert b"/opt/plugins/libplugin.so.1" in embedded(place, tmp_path)[1]
    assert b"/opt/plugins/notes.txt" not in embedded(place, tmp_path)[1]
    convert(native, place, **GIVEN, **{"disable-binary-fs-defaults": True})
    assert b"/opt/plugins/libplugin.so.1" not in embedded(place, tmp_path)[1]


def test_one_file_can_be_named_and_host_paths_are_left_to_the_container(native, place, tmp_path):
    given = {"binary-fs": True, "dir": (), "plain": ("/plain",), "fs-file": ("/app/sub/other",), "host-path": ("/plain",)}
    assert convert(native, place, **given).code == 0
    index, contents = embedded(place, tmp_path)
    assert contents == {b"/app/sub/other": OTHER}
    assert index.manifest.regions.protection(b"/plain/readme") == 0
    assert index.manifest.regions.protection(b"/anything") == 1
    assert (b"/plain/readme", PLAIN) in [(entry.path, content) for entry, content in members(place)]


def test_the_whole_image_can_be_embedded(native, place, tmp_path):
    assert convert(native, place, **{**GIVEN, "fs-dir": ("/",)}).code == 0
    _, contents = embedded(place, tmp_path)
    assert {b"/plain/readme", b"/app/secret"} <= contents.keys()
    assert b"/bin/prog" not in contents


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fs-dir": ("/nowhere",)}, "--fs-dir=/nowhere"),
        ({"fs-file": ("/app",)}, "--fs-file=/app is no regular file in"),
        ({"fs-dir": ("/app/secret",)}, "/app/secret is a regular file"),
        ({"fs-dir": ("/app",), "host-path": ("/app",)}, "/app is named by --host-path"),
        ({"fs-dir": ("/proc",)}, "proc"),
    ],
    ids=["missing", "no file", "no directory", "two classes", "the kernel's"],
)
def test_a_path_that_cannot_be_embedded_is_a_usage_error_and_nothing_is_left(native, place, given, words):
    (native / "proc").mkdir(exist_ok=True)
    outcome = convert(native, place, **{**GIVEN, **given})
    assert outcome.code == 2
    assert words in next(iter(outcome.failures.values()))
    assert not place.layout.exists()


def test_binary_fs_and_dir_contradict_each_other():
    with pytest.raises(UsageError, match="--dir and --binary-fs contradict"):
        check(Options.of({"from": "a", "to": "b", "binary": "/c", "dir": ("/app",), "binary-fs": True}))


def test_everyone_is_told_that_embedded_files_are_public():
    warnings = check(Options.of({"from": "a", "to": "b", "binary": "/c", "binary-fs": True}))
    assert any("everyone who has the image can read them" in warning for warning in warnings)
    assert not any("no --dir" in warning for warning in warnings)


def test_a_device_is_left_out_with_a_warning(native, place, tmp_path):
    os.mkfifo(native / "app" / "pipe")
    outcome = convert(native, place, **GIVEN)
    assert outcome.code == 0
    assert b"/app/pipe" not in {entry.path for entry in embedded(place, tmp_path)[0].manifest.entries}
    assert any("/app/pipe" in message for message in outcome.warnings)


def flipped(monkeypatch):
    """A disk that changes one bit of what is embedded."""
    from sconify_tasks.binary_fs.filling import Filling

    write = Filling.write_to

    def damaged(self, out):
        start = out.tell()
        write(self, out)
        out.seek(start + 40)
        (found,) = out.read(1)
        out.seek(start + 40)
        out.write(bytes([found ^ 1]))
        out.seek(start + self.size)

    monkeypatch.setattr(Filling, "write_to", damaged)


def instead(monkeypatch, choose):
    """A writer that embeds something else."""
    from sconify_tasks.steps import binary_fs

    write = binary_fs.outline
    monkeypatch.setattr(
        binary_fs, "outline", lambda *, embedded, **given: write(embedded=[*map(choose, filter(choose, embedded))], **given)
    )


def forgetful(monkeypatch):
    """A writer that leaves out a file."""
    instead(monkeypatch, lambda entry: entry if entry.path != b"/app/secret" else None)


def careless(monkeypatch):
    """A writer that loses a mode."""
    instead(monkeypatch, lambda entry: replace(entry, meta=replace(entry.meta, mode=0o777)))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (flipped, "damaged"),
        (forgetful, "/app/secret is embedded and was not to be"),
        (careless, "as it is in the native image"),
    ],
    ids=["a flipped bit", "a file left out", "another mode"],
)
def test_the_last_check_refuses_an_image_that_does_not_carry_what_was_selected(native, place, monkeypatch, fault, words):
    fault(monkeypatch)
    outcome = convert(native, place, **GIVEN)
    assert outcome.code == 4
    assert words in outcome.failures["verify_embedded"]
    assert not place.layout.exists()


@pytest.mark.parametrize("option", ["from", "base"])
def test_an_image_with_its_files_in_the_binary_is_no_native_image_and_no_base(native, place, tmp_path, option):
    assert convert(native, place, **GIVEN).code == 0
    other = place.beside(tmp_path / "other")
    outcome = convert(native, other, **{option: f"oci:{place.layout}:small"})
    assert outcome.code == 2
    assert "is a confidential image, and its files are in its binary" in "; ".join(outcome.failures.values())
