"""A shared folder that is poisoned, truncated, foreign, read-only, slow to vanish or full can miss, and nothing else."""

import os
import shutil
import stat
import threading

import pytest
from blake3 import blake3

from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.local import LocalStore
from sconify_cache.record import Record, seal, seal_record
from sconify_cache.shared import SharedCache

KEY = bytes(range(32))
DATA = b"public layer" * 100_000


class Machine:
    """One user's cache, and the shared one."""

    def __init__(self, folder, shared, *, key=KEY):
        self.store = LocalStore(folder / "store")
        self.actions = ActionCache(folder / "actions", mac_key=key)
        self.warnings = []
        self.cache = SharedCache(
            shared, mac_key=key, store=self.store, actions=self.actions, trouble=lambda error: self.warnings.append(str(error))
        )

    def made(self, data=DATA, **more) -> Record:
        record = Record(key=name(1), step="encrypt", outputs={"layer": self.store.put(data)}, facts={"n": 1}, **more)
        self.actions.record(record)
        return record

    def kept(self):
        return {blob.digest for blob in self.store.iterate()}


def name(number: int) -> Digest:
    return Digest(blake3(b"%d" % number).hexdigest())


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def first(tmp_path, shared):
    return Machine(tmp_path / "first", shared)


@pytest.fixture
def second(tmp_path, shared):
    return Machine(tmp_path / "second", shared)


def files(shared, kind="*"):
    return [path for path in sorted((shared).glob(f"{kind}/*/*")) if not path.is_dir()]


def one(shared, kind):
    (path,) = files(shared, kind)
    return path


def overwrite(path, data):
    path.unlink()
    path.write_bytes(data)


def test_what_one_machine_made_another_takes_over_and_keeps(first, second, shared):
    record = first.made()
    first.cache.publish(record)
    assert second.cache.recall(name(1)) == record
    assert second.store.get(record.outputs["layer"]) == DATA
    shutil.rmtree(shared)
    assert second.actions.lookup(name(1)) == record
    assert (first.warnings, second.warnings) == ([], [])


def test_what_is_offered_is_what_would_be_taken_over_and_nothing_is_copied(first, second, shared, tmp_path):
    record = first.made()
    first.cache.publish(record)
    assert second.cache.offered(name(1)) == record
    assert second.cache.offered(name(2)) is None
    assert (second.kept(), second.actions.lookup(name(1)), second.cache.traffic.taken) == (set(), None, 0)
    assert Machine(tmp_path / "stranger", shared, key=bytes(32)).cache.offered(name(1)) is None
    overwrite(one(shared, "blobs"), DATA[:-1])
    assert second.cache.offered(name(1)) is None
    assert second.cache.recall(name(1)) is None
    shutil.rmtree(shared)
    assert second.cache.offered(name(1)) is None
    assert len(second.warnings) == 1


def test_a_blob_is_read_once_when_it_is_taken_over_and_not_at_all_when_it_is_here(first, second, monkeypatch):
    record = first.made()
    first.cache.publish(record)
    read = []
    original = second.cache._files.open

    def counting(kind, digest, **more):
        stream = original(kind, digest, **more)
        if kind == "blobs" and stream is not None:
            reads = stream.read
            wrapped = stream

            class Counted:
                def read(self, size):
                    piece = reads(size)
                    read.append(len(piece))
                    return piece

                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    wrapped.close()

            return Counted()
        return stream

    monkeypatch.setattr(second.cache._files, "open", counting)
    assert second.cache.recall(name(1)) == record
    assert sum(read) == len(DATA)
    assert second.cache.recall(name(1)) == record
    assert sum(read) == len(DATA)


def test_secret_records_and_private_blobs_are_refused(first, shared):
    secret = first.made(secret=True)
    with pytest.raises(StoreError, match="secret record of step encrypt"):
        first.cache.publish(secret)
    private = Record(key=name(2), step="encrypt", outputs={"key": first.store.put(b"private", private=True)})
    with pytest.raises(StoreError, match="private blob of step encrypt"):
        first.cache.publish(private)
    assert files(shared) == []


@pytest.mark.parametrize(
    "poison",
    [b"", b"{}", b"\xff\xfe\x00", b"x" * (5 << 20), seal_record(Record(key=name(1), step="x"), KEY).encode()],
    ids=["empty", "json", "binary", "large", "local-record"],
)
def test_a_record_that_is_not_ours_is_a_miss(first, second, shared, poison):
    first.cache.publish(first.made())
    overwrite(one(shared, "actions"), poison)
    assert second.cache.recall(name(1)) is None
    assert second.kept() == set()


def test_a_record_of_another_key_is_a_miss(first, shared, tmp_path):
    first.cache.publish(first.made())
    stranger = Machine(tmp_path / "stranger", shared, key=bytes(32))
    assert stranger.cache.recall(name(1)) is None
    assert stranger.kept() == set()


def test_a_record_that_was_moved_to_another_action_is_a_miss(first, second, shared):
    first.cache.publish(first.made())
    place = shared / "actions" / name(5)[:2] / name(5)[2:]
    place.parent.mkdir()
    shutil.copy(one(shared, "actions"), place)
    assert second.cache.recall(name(5)) is None


def test_a_secret_record_that_got_there_all_the_same_is_a_miss(first, second, shared):
    first.cache.publish(first.made())
    record = Record(key=name(1), step="policy", secret=True)
    body = {"v": 1, "kind": "shared action", "sizes": {}, "record": record.as_json()}
    overwrite(one(shared, "actions"), seal(body, KEY).encode())
    assert second.cache.recall(name(1)) is None


@pytest.mark.parametrize(
    "poison", [b"", DATA[:-1], DATA + b"!", b"!" + DATA[1:], DATA[:-1] + b"!"], ids=["empty", "short", "long", "first", "last"]
)
def test_a_poisoned_blob_is_a_miss_nothing_of_it_is_kept_and_a_good_one_replaces_it(first, second, shared, poison):
    first.cache.publish(first.made())
    overwrite(one(shared, "blobs"), poison)
    assert second.cache.recall(name(1)) is None
    assert second.kept() == set()
    record = second.made()
    second.cache.publish(record)
    assert one(shared, "blobs").read_bytes() == DATA
    assert second.warnings == []


def test_a_blob_that_is_larger_than_its_record_says_is_never_copied(first, second, shared):
    first.cache.publish(first.made())
    path = one(shared, "blobs")
    path.chmod(0o644)
    os.truncate(path, 1 << 40)  # a terabyte of nothing
    assert second.cache.recall(name(1)) is None
    assert second.kept() == set()


def test_a_blob_that_grows_while_it_is_read_is_not_followed(first, second, monkeypatch):
    first.cache.publish(first.made())
    original = second.cache._files.open

    def endless(kind, digest, **more):
        return open("/dev/zero", "rb") if kind == "blobs" else original(kind, digest, **more)  # noqa: PTH123

    monkeypatch.setattr(second.cache._files, "open", endless)
    assert second.cache.recall(name(1)) is None
    assert second.kept() == set()


@pytest.mark.parametrize("kind", ["actions", "blobs"])
@pytest.mark.parametrize("what", ["fifo", "folder", "symlink", "device", "parent"])
def test_what_is_no_plain_file_is_a_miss_and_does_not_hang(first, second, shared, tmp_path, kind, what):  # noqa: PLR0917
    first.cache.publish(first.made())
    path = one(shared, kind)
    shutil.copy(path, tmp_path / "outside")
    path.unlink()
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "symlink":
        path.symlink_to(tmp_path / "outside")
    elif what == "parent":
        path.parent.rmdir()
        path.parent.write_bytes(b"no folder")
    else:
        path.symlink_to("/dev/zero")
    assert second.cache.recall(name(1)) is None
    assert second.kept() == set()


def test_a_missing_folder_is_one_warning_and_is_not_made(tmp_path):
    machine = Machine(tmp_path / "machine", tmp_path / "not mounted")
    record = machine.made()
    for _ in range(3):
        assert machine.cache.recall(name(1)) is None
        machine.cache.publish(record)
    (warning,) = machine.warnings
    assert "not mounted" in warning
    assert "goes on without it" in warning
    assert not (tmp_path / "not mounted").exists()


def test_a_folder_that_vanishes_is_one_warning(first, second, shared):
    record = first.made()
    first.cache.publish(record)
    shutil.rmtree(shared)
    assert second.cache.recall(name(1)) is None
    first.cache.publish(record)
    assert [len(machine.warnings) for machine in (first, second)] == [1, 1]


@pytest.mark.parametrize("when", ["open", "read", "write"])
def test_a_failing_disk_is_one_warning_and_the_folder_is_left_alone(first, second, monkeypatch, when):
    record = first.made()
    first.cache.publish(record)

    class Failing:
        def read(self, _size):
            raise OSError(5, "Input/output error")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    asked = []

    def fail(*_args, **_more):
        asked.append(1)
        if when == "read":
            return Failing()
        raise OSError(5, "Input/output error")

    if when == "write":
        monkeypatch.setattr(second.cache._files, "write", fail)
        monkeypatch.setattr(second.cache, "_is_there", lambda *_: False)
        made = second.made()
        for _ in range(3):
            second.cache.publish(made)
        assert second.cache.recall(name(1)) == record  # it can still be read
    else:
        monkeypatch.setattr(second.cache._files, "open", fail)
        for _ in range(3):
            assert second.cache.recall(name(1)) is None
        assert second.kept() == set()
    assert len(asked) == 1
    assert len(second.warnings) == 1
    assert "Input/output error" in second.warnings[0]


def test_a_full_folder_is_one_warning_and_leaves_nothing_half(first, small_disk):
    machine = Machine(small_disk.parent / "machine", small_disk)
    machine.cache.publish(machine.made(os.urandom(2 << 20)))
    (warning,) = machine.warnings
    assert "No space left" in warning
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_whatever_the_umask_all_who_may_enter_can_read_and_folders_are_as_open_as_the_shared_one(first, shared, umask):
    shared.chmod(0o2775)
    before = os.umask(umask)
    try:
        first.cache.publish(first.made())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(shared)} == {0o444}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in shared.rglob("*") if path.is_dir()}
    assert folders == {0o2775}


def test_publishing_leaves_no_temporary_file_and_removes_those_a_dead_machine_left(first, shared):
    (shared / "tmp").mkdir()
    for left, mtime in (("old", 0), ("young", None)):
        (shared / "tmp" / left).write_bytes(b"half")
        if mtime is not None:
            os.utime(shared / "tmp" / left, (mtime, mtime))
    first.cache.publish(first.made())
    assert [path.name for path in (shared / "tmp").iterdir()] == ["young"]


def test_many_threads_publish_and_recall_the_same_at_once(first, second, shared):
    record = first.made()
    found = []

    def work():
        first.cache.publish(record)
        found.append(second.cache.recall(name(1)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [record] * 8
    assert second.kept() == {record.outputs["layer"]}
    assert (first.warnings, second.warnings) == ([], [])
