"""What is said of real builds: the file, the option, the layer, the measured field; and never a secret."""

from __future__ import annotations

import json
import os
import re

import pytest
from build.small_image import CONFIG, OTHER, ROOT_KEY, SECRET, snapshot, write, write_config
from explain.explained import build, look
from msgspec.structs import asdict
from parts.images import built, file, folder, layer

from sconify_tasks.events import Event
from sconify_tasks.explain_contents import MOST_FILES
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.sgx.measured_config import decode_config

CHANGES = {
    "content": (lambda app: write(app / "secret", b"another"), "/app/secret: content"),
    "added": (lambda app: write(app / "new", b"x"), "/app/new: added"),
    "removed": (lambda app: (app / "secret").unlink(), "/app/secret: removed"),
    "mode": (lambda app: (app / "secret").chmod(0o600), "/app/secret: mode 0644 -> 0600"),
    "mtime": (lambda app: os.utime(app / "secret", (1_600_000_000, 1_600_000_000)), "/app/secret: mtime"),
    "owner": (lambda app: os.chown(app / "secret", 0, 7), "/app/secret: gid"),
    "target": (lambda app: (app / "link").unlink() or (app / "link").symlink_to("sub"), "/app/link: mtime, target"),
    "kind": (lambda app: (app / "link").unlink() or (app / "link").mkdir(), "/app/link: kind"),
}


def texts(said) -> str:
    return "\n".join(line for lines in said.reasons.values() for line in lines)


@pytest.fixture
def first(native, place):
    (native / "app" / "link").symlink_to("secret")
    os.utime(native / "app" / "link", (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    said = build(native, place)
    assert said.code == 0
    assert set(said.states.values()) == {"run"}
    return said


@pytest.mark.parametrize("change", CHANGES)
def test_the_changed_protected_file_is_named_with_what_of_it_changed(native, place, first, change):
    mutate, line = CHANGES[change]
    mutate(native / "app")
    before = look(native, place)
    assert any(found.startswith(line) for found in before["files"].reasons), before["files"]
    assert before["encrypt"].state == "waits"
    said = build(native, place)
    assert any(found.startswith(line) for found in said.reasons["encrypt"]), said.reasons["encrypt"]
    assert "the native image: a file, or its metadata, changed" in said.reasons["files"]
    assert said.states["cas"] == "cached"


def test_a_step_that_finds_its_inputs_as_before_is_said_to_be_cut_off(native, place, first):
    write(native / "app" / "secret", b"another")
    said = build(native, place)
    assert said.states["copy"] == "cut-off"
    assert said.reasons["copy"] == ("what ran before it gave what it gave before",)


def test_a_changed_plain_file_is_named_by_the_step_that_copies_it(native, place, first):
    write(native / "plain" / "readme", b"changed")
    said = build(native, place)
    assert any(line.startswith("/plain/readme: content") for line in said.reasons["copy"])
    assert said.states["encrypt"] == "cut-off"


def test_of_many_files_the_first_are_named_and_the_rest_counted(native, place, first):
    for number in range(MOST_FILES + 7):
        write(native / "app" / "many" / f"{number:03}", b"x")
    os.utime(native / "app", (1_600_000_000, 1_600_000_000))
    lines = [line for line in build(native, place).reasons["encrypt"] if "many" in line or line.startswith("and ")]
    assert lines[-1] == f"and {MOST_FILES + 7 + 2 - MOST_FILES} more files"  # the directory, and its parent's time


def test_a_file_that_nothing_selects_is_said_to_be_none_of_them(native, place, first):
    write(native / "unused", b"x")
    assert "nothing that is selected of the native image changed" in look(native, place)["files"].reasons
    assert build(native, place).states["encrypt"] == "cut-off"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("heap", 2 << 30),
        ("stack", 4 << 20),
        ("threads", 9),
        ("dlopen", 2),
        ("fork", 1),
        ("mprotect", 0),
    ],
)
def test_what_changes_mrenclave_is_said_field_by_field(native, place, option, value):
    old = BY_NAME[option].default
    assert value != old
    build(native, place)
    expected = f"MRENCLAVE: {option}: {old} -> {value}"
    assert expected in look(native, place, **{option: value})["sign"].reasons
    said = build(native, place, **{option: value})
    assert [found for found in said.reasons["sign"] if found.startswith("MRENCLAVE")] == [expected]
    assert any(re.match(r"MRENCLAVE: [0-9a-f]{16}… -> [0-9a-f]{16}…", found) for found in said.reasons["policy"])


def test_the_measured_fields_that_are_named_are_those_that_differ(native, place, first):
    from build.small_image import Recorder, world_of

    def config():
        with world_of(place, Recorder()) as world:
            scope = f"{world.keys.project}\0oci:{place.layout}:small"
            record = world.actions.latest(scope, "sign")
            return decode_config(world.store.get(record.outputs["config"])).as_json()

    old = config()
    with (native / "bin" / "prog").open("ab") as program:
        program.write(b"\0" * 8)
    said = build(native, place, heap=2 << 30)
    new = config()
    flat = [{**one, **{f"binary.{name}": value for name, value in one["binary"].items()}} for one in (old, new)]
    differ = {name for name in flat[0] if name != "binary" and flat[0][name] != flat[1][name]}
    named = {line.split(": ")[1] for line in said.reasons["sign"] if line.startswith("MRENCLAVE: ")}
    assert named == differ == {"heap", "binary.sha256", "binary.size"}


def test_a_changed_config_of_the_native_image_is_named_by_key_and_variable_without_its_value(native, place, first):
    config = {**CONFIG, "config": {**CONFIG["config"], "Env": ["NATIVE=marker-other"], "User": "7"}}
    write_config(native, config)
    said = build(native, place)
    assert {"the native image: config, env (NATIVE)", "the native image: config, user"} <= set(said.reasons["inspect"])
    assert "inspect.config: env (NATIVE)" in said.reasons["policy"] or "env (NATIVE)" in "\n".join(said.reasons["policy"])
    assert "marker" not in texts(said)


def test_the_layer_of_the_base_that_changed_is_numbered(native, place, tmp_path):
    from sconify_tasks.image.rootfs import RootfsSource
    from sconify_tasks.image.sinks import Sinks

    empty = tmp_path / "empty"
    empty.mkdir()
    sinks = Sinks(docker=None, default_oci_store=tmp_path)  # type: ignore[arg-type]

    def base(*contents: bytes) -> None:
        layers = [layer(tmp_path / "layers", folder(b"/opt"), file(b"/opt/%d" % at, text)) for at, text in enumerate(contents)]
        sink, name = sinks.open(f"oci:{tmp_path}/base:1")
        sink.deliver(built(*layers), RootfsSource(empty), name)

    base(b"one", b"two")
    given = {"base": f"oci:{tmp_path}/base:1"}
    assert build(native, place, **given).code == 0
    base(b"one", b"other")
    assert "the base image: layer 2 of 2 changed" in look(native, place, **given)["copy"].reasons
    said = build(native, place, **given)
    for step in ("copy", "manifest", "image", "verify"):
        assert "the base image: layer 2 of 2 changed" in said.reasons[step], step


@pytest.mark.parametrize(
    ("given", "step", "line"),
    [
        ({"key-epoch": 3}, "encrypt", "--key-epoch: 0 -> 3"),
        ({"namespace": "team"}, "policy", "--namespace: none -> team"),
        ({"name": "other"}, "policy", "--name: none -> other"),
        ({"dir": ("/app", "/plain"), "plain": ()}, "files", "--dir: + /plain"),
        ({"plain": ()}, "files", "--plain: - /plain"),
        ({"env": ("TOKEN=marker",)}, "policy", "--env changed (its value is secret)"),
        ({"command": "/bin/prog marker"}, "binary", "--command changed (its value is secret)"),
        ({"disable-pie-check": False}, "binary", "--disable-pie-check: yes -> no"),
    ],
    ids=lambda value: value if isinstance(value, str) else "given",
)
def test_the_changed_option_is_named_with_both_values(native, place, given, step, line):
    build(native, place)
    given = {"create-namespace": "namespace" in given} | given
    assert line in look(native, place, **given)[step].reasons
    said = build(native, place, **given)
    assert said.code == 0
    assert line in said.reasons[step]
    assert "marker" not in texts(said)


def test_another_native_image_is_named_with_the_one_before(native, place, first, tmp_path, program):
    from build.small_image import make_native

    other = make_native(tmp_path / "other", program)
    write(other / "app" / "secret", b"another")
    said = build(other, place)
    assert f"--from: dir:{native} -> dir:{other}" in said.reasons["inspect"]


def test_a_step_that_runs_with_its_old_key_says_what_is_gone(native, place, first):
    for path in place.layout.iterdir():
        if path.is_file():
            path.unlink()
    said = build(native, place)
    assert said.reasons["deliver"] == ("the image is no longer where --to says, or another one is",)
    place.session.unlink()
    assert look(native, place)["resources"].reasons == ("a file of the build resources is gone or was changed",)
    assert build(native, place).reasons["resources"] == ("a file of the build resources is gone or was changed",)


def test_a_blob_that_is_gone_from_the_cache_is_named_by_its_output(native, place, first):
    from build.small_image import Recorder, world_of

    with world_of(place, Recorder()) as world:
        record = world.actions.latest(f"{world.keys.project}\0oci:{place.layout}:small", "encrypt")
        digest = record.outputs["layer"]
        world.store.delete(digest)
    assert "its output layer is gone from the cache" in look(native, place)["encrypt"].reasons
    assert "its output layer is gone from the cache" in build(native, place).reasons["encrypt"]


def test_a_return_to_what_was_built_before_says_what_changed_and_that_it_is_no_longer_there(native, place, first):
    build(native, place, heap=2 << 30)
    said = build(native, place)
    assert said.states["sign"] == "cached"
    assert "the image is no longer where --to says, or another one is" in said.reasons["deliver"]


def test_a_look_runs_nothing_and_writes_nothing(native, place, first):
    write(native / "app" / "secret", b"changed")
    (place.cache / "doit.db").touch()
    before = snapshot(place.folder, native)
    look(native, place, heap=2 << 30)
    changed = {path for path, found in snapshot(place.folder, native).items() if found != before.get(path)}
    # SQLite's -wal and -shm come and go while a database in WAL mode is read.
    assert changed <= {str(place.cache / "actions"), str(place.state / "cas")}
    assert snapshot(place.folder, native).keys() == before.keys()


def test_a_look_at_what_was_never_built_makes_no_folder(native, place):
    found = look(native, place)
    assert {one.state for one in found.values()} == {"run"}
    assert {one.reasons for one in found.values()} == {("never run for this image",)}
    assert list(place.folder.iterdir()) == []


def test_a_build_after_a_failed_one_still_says_what_changed_since_the_last_whole_one(native, place, first):
    write(native / "app" / "secret", b"changed")
    index = place.layout / "index.json"
    kept = index.read_bytes()
    index.write_bytes(b"no index")
    assert build(native, place).code != 0
    index.write_bytes(kept)
    said = build(native, place)
    assert said.code == 0
    assert said.states["encrypt"] == "cached"
    assert "encrypt.layer changed" in said.reasons["deliver"]


def everything(events: tuple[Event, ...]) -> str:
    return "\n".join(json.dumps(asdict(event), default=str) for event in events)


def test_no_event_holds_a_key_plaintext_the_environment_or_a_secret_option(native, place, first):
    (key,) = re.findall(r"fspf_key: ([0-9a-f]{64})", place.session.read_text())
    given = {"env": ("TOKEN=marker-of-env",), "command": "/bin/prog marker-of-command", "heap": 2 << 30}
    write(native / "app" / "secret", SECRET + b"more")
    text = everything(build(native, place, **given).events)
    write(native / "app" / "sub" / "other", OTHER + b"more")
    (place.cache / "store").rename(place.cache / "gone")
    text += everything(build(native, place, **given).events)
    for secret in ("marker-of", SECRET.decode()[:20], "another protected", key, ROOT_KEY):
        assert secret not in text
    assert "/app/secret: content" in text


def test_records_that_others_may_have_name_no_protected_file(native, place, first):
    from build.small_image import Recorder, world_of

    write(native / "app" / "secret", b"changed")
    build(native, place)
    with world_of(place, Recorder()) as world:
        for record in world.actions.records():
            if not record.secret:
                assert "/app/secret" not in json.dumps([record.facts, record.components], default=str)
