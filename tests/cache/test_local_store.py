"""What is particular to the store in a folder: modes, damage, use times, leftovers, full and read-only disks."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

from sconify_cache import local
from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.local import LocalStore
from sconify_cache.store import MissingBlobError

DAY = local.USE_GRANULARITY_NS


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_layout_on_disk_is_two_digits_then_the_rest(store, tmp_path):
    digest = store.put(b"layout")
    assert store.path(digest) == tmp_path / "store" / "blobs" / digest[:2] / digest[2:]


def test_the_folder_is_its_owners_alone_even_if_it_was_wider_before(store, tmp_path):
    (tmp_path / "store").mkdir(mode=0o755)
    store.put(b"x")
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_somebody_else_is_refused(store, tmp_path):
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345"):
        store.put(b"x")


def test_private_blobs_are_readable_by_their_owner_only(store):
    digest = store.put(b"secret", private=True)
    assert stat.S_IMODE(store.path(digest).stat().st_mode) == 0o400
    assert [blob.private for blob in store.iterate()] == [True]


def test_a_blob_that_was_ever_public_is_public(store):
    digest = store.put(b"both", private=True)
    store.put(b"both")
    assert stat.S_IMODE(store.path(digest).stat().st_mode) == 0o444
    with store.writer(private=True) as blob:
        blob.write(b"both")
    assert stat.S_IMODE(store.path(digest).stat().st_mode) == 0o444


def test_a_file_being_written_is_its_owners_alone(store, tmp_path):
    with store.writer() as blob:
        blob.write(b"x" * (2 << 20))
        (temporary,) = [path for path in (tmp_path / "store" / "tmp").rglob("*") if path.is_file() and path.stat().st_size > 99]
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", [b"", b"good bytet", b"good byte", b"good bytes!"], ids=["empty", "flip", "short", "long"])
def test_damage_that_another_process_finds_is_set_aside(store, tmp_path, damage):
    path = store.path(store.put(b"good bytes"))
    path.chmod(0o600)
    path.write_bytes(damage)
    fresh = LocalStore(tmp_path / "store")
    digest = Digest(path.parent.name + path.name)
    with pytest.raises(MissingBlobError) as caught:
        fresh.open(digest)
    assert caught.value.damaged
    assert not fresh.has(digest)


def test_what_was_set_aside_can_be_discarded(store, tmp_path):
    path = store.path(store.put(b"good bytes"))
    path.chmod(0o600)
    path.write_bytes(b"bad")
    with pytest.raises(MissingBlobError):
        store.get(Digest(path.parent.name + path.name))
    assert len(list((tmp_path / "store" / "damaged").iterdir())) == 1
    assert store.discard_damaged() == 1
    assert store.discard_damaged() == 0


def test_a_write_repairs_what_is_damaged_without_anybody_having_read_it(store):
    digest = store.put(b"good bytes")
    path = store.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"evil bytes")
    with store.writer() as blob:
        blob.write(b"good bytes")
    assert store.get(digest) == b"good bytes"


@pytest.mark.parametrize("plant", ["symlink", "fifo", "folder"])
def test_what_is_planted_in_a_blobs_place_is_not_opened(store, tmp_path, plant):
    digest = Digest(blake3(b"wanted").hexdigest())
    path = tmp_path / "store" / "blobs" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"wanted")
    match plant:
        case "symlink":
            path.symlink_to(tmp_path / "outside")
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    assert not store.has(digest)
    with pytest.raises(MissingBlobError):
        store.size(digest)
    for read in (store.get, store.open, store.path):
        with pytest.raises(MissingBlobError):
            read(digest)
    with store.writer() as blob:
        blob.write(b"wanted")
    assert store.get(digest) == b"wanted"
    store.discard_damaged()
    assert not list((tmp_path / "store" / "damaged").iterdir())


def test_a_folder_in_a_blobs_place_does_not_stop_a_write(store, tmp_path):
    digest = Digest(blake3(b"wanted").hexdigest())
    (tmp_path / "store" / "blobs" / digest[:2] / digest[2:] / "inner").mkdir(parents=True)
    with store.writer() as blob:
        blob.write(b"wanted")
    assert store.get(digest) == b"wanted"


def test_what_was_hashed_while_it_was_written_or_once_after_is_not_hashed_again_and_a_changed_file_is(tmp_path, monkeypatch):
    writer, reader = LocalStore(tmp_path / "store"), LocalStore(tmp_path / "store")
    digest = writer.put(b"hashed once" * 1000)
    hashed = []
    real = local.hash_stream
    monkeypatch.setattr(local, "hash_stream", lambda stream: hashed.append(1) or real(stream))
    for store, times in ((writer, 0), (reader, 1)):
        store.open(digest).close()
        store.path(digest)
        store.path(digest)
        assert len(hashed) == times
    path = reader.path(digest)
    for store, times in ((writer, 2), (reader, 3)):
        os.utime(path)
        store.path(digest)
        assert len(hashed) == times


def test_the_last_use_is_noted_once_a_day(tmp_path):
    clock = [1_700_000_000 * 10**9]
    store = LocalStore(tmp_path / "store", now=lambda: clock[0])
    digest = store.put(b"used")

    def used():
        return next(store.iterate()).used_ns

    start = clock[0]
    assert used() == start
    clock[0] += DAY - 1
    store.get(digest)
    assert used() == start
    clock[0] += 1
    assert store.has(digest)
    assert used() == start + DAY
    assert store.check(digest) == 4
    clock[0] += 2 * DAY
    assert store.check(digest) == 4
    assert used() == start + DAY


def test_asking_what_is_there_writes_nothing(store, tmp_path):
    digest = store.put(b"quiet")
    before = {path: path.stat().st_ctime_ns for path in tmp_path.rglob("*")}
    again = LocalStore(tmp_path / "store")
    again.sweep()
    assert again.has(digest)
    assert again.get(digest) == b"quiet"
    assert {path: path.stat().st_ctime_ns for path in tmp_path.rglob("*")} == before


def test_delete_is_idempotent_and_asks_whom_to_spare_before_and_when_nobody_can_reach_it(store):
    digest = store.put(b"to go")
    (blob,) = store.iterate()
    asked = []

    def spare(used_ns):
        asked.append((used_ns, store.has(digest)))
        return len(asked) > 1

    assert not store.delete(digest, spare=spare)
    assert asked == [(blob.used_ns, True), (blob.used_ns, False)]
    assert store.has(digest)
    assert not store.delete(digest, spare=spare)
    assert asked[2:] == [(blob.used_ns, True)]  # never out of reach
    assert store.delete(digest, spare=lambda _used_ns: False)
    assert not store.has(digest)
    assert not store.delete(digest)


def test_foreign_files_are_not_listed(store, tmp_path):
    digest = store.put(b"mine")
    (tmp_path / "store" / "blobs" / "README").write_text("hello")
    (tmp_path / "store" / "blobs" / digest[:2] / "short").write_text("hello")
    assert [blob.digest for blob in store.iterate()] == [digest]


def test_a_listing_is_in_the_order_of_digests(store):
    digests = {store.put(bytes([n])) for n in range(50)}
    assert [blob.digest for blob in store.iterate()] == sorted(digests)


def test_a_full_disk_is_a_store_error_that_leaves_nothing_behind(small_disk):
    store = LocalStore(small_disk / "store")
    kept = store.put(b"kept" * 1000)
    for attempt in (lambda: store.put(os.urandom(2 << 20)), lambda: write_slowly(store)):
        with pytest.raises(StoreError, match=r"No space left on device \(\d+ bytes free\)") as caught:
            attempt()
        assert "gc" in caught.value.hint
    assert [blob.digest for blob in store.iterate()] == [kept]
    assert not [name for name in files_below(small_disk) if "tmp/" in name and not name.endswith(".lease")]
    assert store.get(store.put(b"there is room again" * 100))


def write_slowly(store):
    with store.writer() as blob:
        for _ in range(300):
            blob.write(b"\0" * 8192)


def test_a_read_only_disk_can_be_read_and_says_why_it_is_not_written(small_disk):
    digest = LocalStore(small_disk / "store").put(b"there")
    bad = LocalStore(small_disk / "store").put(b"good")
    path = LocalStore(small_disk / "store").path(bad)
    path.chmod(0o600)
    path.write_bytes(b"evil")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = LocalStore(small_disk / "store")
    assert store.get(digest) == b"there"
    with pytest.raises(MissingBlobError):
        store.get(bad)
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        store.put(b"new")
    assert "folder that can be written" in caught.value.hint


def test_a_file_of_another_file_system_is_not_adopted(store, small_disk):
    foreign = small_disk / "file"
    foreign.write_bytes(b"far away")
    with pytest.raises(StoreError, match=os.strerror(errno.EXDEV)) as caught:
        store.adopt(foreign)
    assert "scratch" in caught.value.hint
    assert foreign.exists()


def test_an_adopted_file_is_hashed_once_and_again_only_where_it_was_touched(store, monkeypatch):
    hashed = []
    whole = local.hash_stream
    monkeypatch.setattr(local, "hash_stream", lambda stream: hashed.append(1) or whole(stream))
    with store.scratch() as scratch:
        (scratch / "file").write_bytes(b"large" * 1000)
        digest = store.adopt(scratch / "file")
    store.path(digest)
    assert len(hashed) == 1
    path = store.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"other" * 1000)
    with pytest.raises(MissingBlobError):
        store.path(digest)


def test_a_verified_blob_is_not_hashed_again_for_a_link_that_was_made_of_it_and_is_after_a_write(tmp_path, monkeypatch):
    hashed = []
    whole = local.hash_stream
    monkeypatch.setattr(local, "hash_stream", lambda stream: hashed.append(1) or whole(stream))
    store = LocalStore(tmp_path / "store")
    (tmp_path / "layer").write_bytes(b"layer")
    digest = store.adopt(tmp_path / "layer")
    path = store.path(digest)
    assert len(hashed) == 1
    os.link(path, tmp_path / "delivered")
    assert store.path(digest) == path
    assert len(hashed) == 1
    (tmp_path / "delivered").chmod(0o600)
    (tmp_path / "delivered").write_bytes(b"LAYER")
    with pytest.raises(MissingBlobError):
        store.path(digest)
    assert len(hashed) == 2


def test_a_store_that_is_closed_leaves_no_scratch_and_may_be_used_again(store, tmp_path):
    for data in (b"one", b"two"):
        digest = store.put(data)
        store.close()
        assert list((tmp_path / "store" / "tmp").iterdir()) == []
        assert store.get(digest) == data


def test_a_forked_child_that_closes_the_store_leaves_its_parents_scratch(store):
    with store.scratch() as scratch:
        if not (pid := os.fork()):
            store.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert scratch.is_dir()
