"""Records in a shared folder: ours are found, all others are misses, secret ones never get there."""

import os
import shutil

import pytest
from blake3 import blake3

from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.record import Record, seal_record
from sconify_cache.shared import LayeredRecords, SharedRecords

KEY = bytes(range(32))


def name(number: int) -> Digest:
    return Digest(blake3(b"%d" % number).hexdigest())


RECORD = Record(key=name(1), step="binary", outputs={"elf": name(2)}, facts={"size": 9})
SECRET = Record(key=name(3), step="policy", secret=True)


@pytest.fixture
def shared(tmp_path):
    return SharedRecords(tmp_path / "shared", mac_key=KEY)


@pytest.fixture
def near(tmp_path):
    return ActionCache(tmp_path / "actions", mac_key=KEY)


def file_of(tmp_path, key):
    return tmp_path / "shared" / "actions" / key[:2] / f"{key[2:]}.json"


def test_a_record_of_another_machine_is_found(shared, tmp_path):
    assert shared.lookup(name(1)) is None
    shared.record(RECORD)
    shared.record(RECORD)
    assert SharedRecords(tmp_path / "shared", mac_key=KEY).lookup(name(1)) == RECORD
    assert file_of(tmp_path, name(1)).is_file()


@pytest.mark.parametrize("poison", [b"", b"{}", b"\xff\xfe\x00", b"x" * (5 << 20), seal_record(RECORD, bytes(32)).encode()])
def test_what_is_not_ours_is_a_miss(shared, tmp_path, poison):
    shared.record(RECORD)
    file_of(tmp_path, name(1)).unlink()
    file_of(tmp_path, name(1)).write_bytes(poison)
    assert shared.lookup(name(1)) is None


def test_a_record_that_was_moved_to_another_action_is_a_miss(shared, tmp_path):
    shared.record(RECORD)
    file_of(tmp_path, name(5)).parent.mkdir()
    shutil.copy(file_of(tmp_path, name(1)), file_of(tmp_path, name(5)))
    assert shared.lookup(name(5)) is None


def test_a_fifo_or_folder_in_a_records_place_is_a_miss_and_does_not_hang(shared, tmp_path):
    file_of(tmp_path, name(1)).parent.mkdir(parents=True)
    os.mkfifo(file_of(tmp_path, name(1)))
    file_of(tmp_path, name(6)).mkdir(parents=True)
    assert shared.lookup(name(1)) is None
    assert shared.lookup(name(6)) is None


def test_a_symlink_is_not_followed(shared, near, tmp_path):
    file_of(tmp_path, name(1)).parent.mkdir(parents=True)
    (tmp_path / "outside").write_text(seal_record(RECORD, KEY))
    file_of(tmp_path, name(1)).symlink_to(tmp_path / "outside")
    assert LayeredRecords(near, [shared], trouble=pytest.fail).lookup(name(1)) is None


def test_secret_records_are_refused_by_the_folder_and_held_back_by_the_layers(shared, near, tmp_path):
    with pytest.raises(StoreError, match="secret record of step policy"):
        shared.record(SECRET)
    layers = LayeredRecords(near, [shared], publish=[shared], trouble=pytest.fail)
    layers.record(SECRET)
    layers.record(RECORD)
    assert near.lookup(name(3)) == SECRET
    assert shared.lookup(name(3)) is None
    assert shared.lookup(name(1)) == RECORD


def test_what_was_found_far_is_kept_near(shared, near):
    shared.record(RECORD)
    assert LayeredRecords(near, [shared]).lookup(name(1)) == RECORD
    assert near.lookup(name(1)) == RECORD


def test_a_failing_folder_is_reported_and_the_build_goes_on(near, tmp_path):
    (tmp_path / "shared").write_text("not a folder")
    troubles = []
    far = SharedRecords(tmp_path / "shared", mac_key=KEY)
    layers = LayeredRecords(near, [far], publish=[far], trouble=troubles.append)
    layers.record(RECORD)
    assert near.lookup(name(1)) == RECORD
    assert len(troubles) == 1
    assert layers.lookup(name(9)) is None


def test_publishing_leaves_no_temporary_file(shared, tmp_path):
    shared.record(RECORD)
    files = [path for path in (tmp_path / "shared").rglob("*") if path.is_file() and path.suffix != ".lease"]
    assert files == [file_of(tmp_path, name(1))]
