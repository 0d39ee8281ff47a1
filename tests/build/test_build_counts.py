"""What a second run does: exactly what the change demands, and after no change nothing at all."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from hashlib import sha256

import pytest
from blake3 import blake3
from build.small_image import OTHER, Place, Recorder, convert, order_for, snapshot, world_of, write
from parts.images import built, file, layer

from sconify_cache import stat as stat_room
from sconify_dodo.front import make_build
from sconify_tasks import world as world_room
from sconify_tasks.events import StepFinished
from sconify_tasks.fspf.stream import sealed_size
from sconify_tasks.graph import STEPS as ALL
from sconify_tasks.image.rootfs import RootfsSource
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink_oci import OciSink

EVERY_STEP = {step.name for step in ALL}
# Steps that look at the native image, and whatever depends on its identity.
LOOKS_AT_NATIVE = {"inspect", "binary", "files", "libraries", "image"}


class CountingStatCache(stat_room.StatCache):
    """Counts the files that must be hashed because their stat is not known."""

    hashed = 0

    def lookup(self, path, found):
        known = super().lookup(path, found)
        type(self).hashed += known is None
        return known


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setattr(CountingStatCache, "hashed", 0)
    monkeypatch.setattr(world_room, "StatCache", CountingStatCache)
    return CountingStatCache


def test_a_first_run_runs_every_step_once(native, place):
    outcome = convert(native, place, jobs=2)
    assert outcome.code == 0
    assert sorted(outcome.started) == sorted(EVERY_STEP)


def test_a_second_run_runs_no_step_hashes_no_file_and_writes_nothing(native, place, counting):
    assert convert(native, place).code == 0
    assert counting.hashed > 0
    before, counting.hashed = snapshot(place.folder, native), 0
    outcome = convert(native, place)
    assert outcome.code == 0
    assert outcome.started == []
    assert counting.hashed == 0
    changed = {path for path, found in snapshot(place.folder, native).items() if found != before.get(path)}
    # SQLite's -wal and -shm come and go while a database in WAL mode is read.
    assert changed <= {str(place.cache / "actions"), str(place.state / "cas")}
    assert snapshot(place.folder, native).keys() == before.keys()


def test_one_changed_protected_file_runs_what_depends_on_it(native, place):
    convert(native, place)
    write(native / "app" / "secret", b"changed")
    assert convert(native, place).ran == LOOKS_AT_NATIVE | {
        *("encrypt", "manifest", "verify", "policy", "deliver", "resources", "upload")
    }


def test_one_changed_plain_file_encrypts_nothing_and_leaves_the_session_alone(native, place):
    convert(native, place)
    session = place.session.read_bytes()
    write(native / "plain" / "readme", b"changed")
    assert convert(native, place).ran == LOOKS_AT_NATIVE | {"copy", "verify", "deliver", "resources", "upload"}
    assert place.session.read_bytes() == session


def test_a_changed_file_that_nothing_selects_changes_no_output(native, place):
    write(native / "unused", b"one")
    convert(native, place)
    digest = place.image_digest()
    write(native / "unused", b"two")
    assert convert(native, place).ran == LOOKS_AT_NATIVE
    assert place.image_digest() == digest


def test_one_changed_variable_of_the_session_makes_no_new_image(native, place):
    convert(native, place)
    digest = place.image_digest()
    assert convert(native, place, env=("MORE=1",)).ran == {"inspect", "policy", "resources", "upload"}
    assert place.image_digest() == digest
    assert b"MORE" in place.session.read_bytes()


def test_another_heap_measures_again_and_encrypts_nothing(native, place):
    convert(native, place)
    assert convert(native, place, heap=2 << 30).ran == {
        *("sign", "sconify", "image", "verify", "policy", "deliver", "resources", "upload")
    }


def test_only_the_hash_of_a_changed_file_is_taken_again(native, place, counting):
    convert(native, place)
    write(native / "app" / "sub" / "other", OTHER + b"more")
    counting.hashed = 0
    convert(native, place)
    assert counting.hashed == 1


def test_a_return_to_what_was_built_before_runs_only_what_delivers(native, place):
    convert(native, place)
    digest = place.image_digest()
    convert(native, place, heap=2 << 30)
    assert place.image_digest() != digest
    outcome = convert(native, place)
    assert outcome.ran == {"deliver", "resources", "upload"}
    assert place.image_digest() == digest


def test_steps_that_fail_are_not_recorded_and_those_before_them_are(native, place):
    place.layout.write_bytes(b"a file stands where the layout should be")
    failed = convert(native, place)
    assert failed.code == 1
    assert set(failed.failures) == {"deliver"}
    place.layout.unlink()
    assert convert(native, place).ran <= {"deliver", "resources", "upload"}


def test_a_run_holds_the_stores_lease_while_steps_run_and_gives_it_back(native, place):
    from sconify_cache.gc import running

    leases: list[int] = []
    store = place.cache / "store"
    convert(native, place, react=lambda _event: leases.append(len(running(store))))
    assert leases
    assert set(leases[1:]) == {1}
    assert running(store) == ()


def test_what_a_killed_run_left_in_the_store_goes_with_the_next_run(native, place):
    convert(native, place)
    left = place.cache / "store" / "tmp" / "12345-0011223344556677"
    left.mkdir()
    (left / "half-written").write_bytes(b"x")
    left.with_name(left.name + ".lease").write_bytes(b"0 pid 12345\n")
    assert convert(native, place).started == []
    assert not left.exists()


def test_the_databases_hold_no_protected_content_environment_or_command(native, place: Place):
    convert(native, place, env=("TOKEN=marker-of-an-env-option",))
    for path in (place.cache / "actions" / "cache.db", place.cache / "doit.db"):
        with sqlite3.connect(path) as database:
            text = "\n".join(database.iterdump())
        assert "marker-of" not in text, path


def test_one_changed_file_among_many_is_read_and_encrypted_alone(native, place):
    for number in range(40):
        write(native / "app" / "many" / f"{number}", b"%d " % number * 999)
    first = counted(convert(native, place))
    assert first["files read"] == 40 + 4
    write(native / "app" / "many" / "7", b"changed")
    outcome = convert(native, place)
    found = counted(outcome)
    assert outcome.code == 0
    assert (found["files read"], found["files encrypted"], found["bytes encrypted"]) == (1, 1, len(b"changed"))
    assert found["bytes copied from before"] == first["bytes encrypted"] - len(b"7 " * 999)


def test_unchanged_ciphertext_is_copied_inside_the_kernel(native, place, monkeypatch):
    for number in range(30):
        write(native / "app" / "many" / f"{number}", b"%3d" % number * 200_000)
    copied = []
    real = os.copy_file_range

    def watched(source, out, length, *offsets):
        done = real(source, out, length, *offsets)
        if "/store/tmp/" in os.readlink(f"/proc/self/fd/{out}"):  # noqa: PTH115
            copied.append((os.readlink(f"/proc/self/fd/{source}"), done))  # noqa: PTH115
        return done

    monkeypatch.setattr(os, "copy_file_range", watched)
    convert(native, place)
    write(native / "app" / "many" / "7", b"changed")
    copied.clear()
    outcome = convert(native, place)
    assert outcome.code == 0
    unchanged = counted(outcome)["bytes copied from before"]
    assert unchanged > 29 * 600_000
    from_before = [length for path, length in copied if "/store/blobs/" in path]
    assert sum(from_before) >= 29 * sealed_size(600_000)
    clean = place.beside(place.folder / "clean")
    assert convert(native, clean).code == 0
    assert clean.image_digest() == place.image_digest()


def test_what_is_copied_does_not_depend_on_the_directories_that_are_encrypted(native, place):
    """Builders give the working directory a new time with every image."""
    given = {"plain": ("/usr/share",)}
    write(native / "usr" / "share" / "plain", b"plain")
    (native / "app").chmod(0o750)
    assert convert(native, place, **given).code == 0
    os.utime(native / "app", (1_800_000_000, 1_800_000_000))
    outcome = convert(native, place, **given)
    assert outcome.code == 0
    assert "encrypt" in outcome.started
    assert "copy" not in outcome.started
    clean = place.beside(place.folder / "clean")
    assert convert(native, clean, **given).code == 0
    assert clean.image_digest() == place.image_digest()


def test_a_file_that_is_read_again_after_all_is_found_as_before(native, place):
    """What the step remembers is gone: everything is read, and nothing comes out differently."""
    convert(native, place)
    digest = place.image_digest()
    for blob in (place.cache / "store" / "blobs").glob("*/*"):
        blob.unlink()
    outcome = convert(native, place)
    assert counted(outcome)["files read"] == 4
    assert place.image_digest() == digest


def test_what_public_steps_yield_tells_no_unkeyed_digest_of_a_protected_file(native, place):
    """They may be shared: from SHA-256 or BLAKE3 of a file its content could be guessed."""
    convert(native, place)
    contents = [(native / "app" / name).read_bytes() for name in ("secret", "sub/other", "run")]
    digests = [make(content) for content in contents for make in (sha256, blake3)]
    shapes = [shape for digest in digests for shape in (digest.digest(), digest.hexdigest().encode())]
    public = {step.name for step in ALL if not step.secret}
    assert {"encrypt", "copy", "sconify"} <= public
    with world_of(place, Recorder()) as world:
        build = make_build(world, order_for(native, place))
        assert build.plan() == ()
        for name in public:
            outputs = build.settled[name]
            record = json.dumps([outputs.facts, list(outputs.blobs.values())]).encode()
            blobs = [world.store.get(digest) for digest in outputs.blobs.values()]
            assert not [shape for shape in shapes for text in (record, *blobs) if shape in text], name
        for name in ("encrypt", "copy"):
            for digest in build.settled[name].blobs.values():
                assert world.store.path(digest).stat().st_mode & 0o777 == 0o444
        salts = world.store.path(build.settled["files"].blobs["salts"])
        assert salts.stat().st_mode & 0o777 == 0o400
        assert [shape for shape in shapes if shape in salts.read_bytes()]
        build.close()


def counted(outcome) -> Counter[str]:
    """What all steps counted."""
    total: Counter[str] = Counter()
    for event in outcome.events:
        if isinstance(event, StepFinished):
            total.update(event.counts)
    return total


def deliver_native(native, folder, tag, lowest):
    """The native image in an OCI layout: a layer of its own, and the folder as one layer above it."""
    config = json.loads(native.with_name("native.json").read_text())["config"]
    with RootfsSource(native).layer_files() as (top,):
        OciSink(folder / "native").deliver(built(lowest, top, **config, Entrypoint=None), ScratchSource(), tag)
    return f"oci:{folder / 'native'}:{tag}"


def test_a_changed_top_layer_never_reads_the_layers_below(native, place, tmp_path):
    lowest = layer(tmp_path / "lowest", file(b"/app/low", b"low down"), file(b"/app/secret", b"covered"))
    before = counted(convert(native, place, **{"from": deliver_native(native, tmp_path, "1", lowest)}))
    assert (before["layers read"], before["layers from the cache"]) == (2, 0)
    write(native / "app" / "secret", b"changed")
    second = deliver_native(native, tmp_path, "2", lowest)

    outcome = convert(native, place, **{"from": second})

    found = counted(outcome)
    assert outcome.code == 0
    assert (found["layers read"], found["layers from the cache"]) == (1, 1)
    assert (found["files encrypted"], found["bytes encrypted"]) == (1, len(b"changed"))
    assert found["files read"] == before["files read"] - 1  # those of the layer that changed
    clean = place.beside(tmp_path / "clean")
    assert convert(native, clean, **{"from": second}).code == 0
    assert clean.image_digest() == place.image_digest()
