"""Every store keeps the contract of `sconify_cache.store`: one suite, run over each implementation."""

import os
import stat
import threading

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.local import LocalStore
from sconify_cache.store import MissingBlobError

ABSENT = Digest(blake3(b"absent").hexdigest())


def make_local(folder):
    return LocalStore(folder / "store")


@pytest.fixture(params=[make_local], ids=lambda make: make.__name__[5:])
def store(request, tmp_path):
    return request.param(tmp_path)


def digest_of(data: bytes) -> Digest:
    return Digest(blake3(data).hexdigest())


def test_an_unwritten_store_has_nothing_and_makes_nothing(store, tmp_path):
    assert not store.has(ABSENT)
    for read in (store.size, store.get, store.open, store.path):
        with pytest.raises(MissingBlobError) as caught:
            read(ABSENT)
        assert caught.value.digest == ABSENT
        assert not caught.value.damaged
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"x", b"0123456789abcdef" * 200_000], ids=["empty", "one", "3MB"])
def test_what_is_put_is_read_back_in_every_way(store, data):
    digest = store.put(data)
    assert digest == digest_of(data)
    assert store.has(digest)
    assert store.size(digest) == len(data)
    assert store.get(digest) == data
    with store.open(digest) as stream:
        assert stream.read() == data
    assert store.path(digest).read_bytes() == data


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=5000), max_size=8))
def test_the_writer_names_the_blob_by_its_bytes_however_they_are_cut(store, pieces):
    with store.writer() as blob:
        for piece in pieces:
            assert blob.write(piece) == len(piece)
    data = b"".join(pieces)
    assert (blob.digest, blob.size) == (digest_of(data), len(data))
    assert store.get(blob.digest) == data


def test_the_digest_is_not_known_before_the_block_ended(store):
    with store.writer() as blob:
        blob.write(b"unfinished")
        with pytest.raises(ValueError, match="block has ended"):
            _ = blob.digest


def test_a_block_that_raises_leaves_no_blob(store):
    data = b"given up" * 1000
    with pytest.raises(KeyError), store.writer() as blob:  # noqa: PT012 - the block is what is tested
        blob.write(data)
        raise KeyError
    assert not store.has(digest_of(data))


def test_an_os_error_of_the_caller_stays_an_os_error(store, tmp_path):
    with pytest.raises(FileNotFoundError), store.writer() as blob:
        blob.write((tmp_path / "not there").read_bytes())


def test_a_scratch_file_is_adopted_under_its_digest_and_gone_from_scratch(store):
    with store.scratch() as folder:
        file = folder / "layer.tar"
        file.write_bytes(b"layer" * 100_000)
        digest = store.adopt(file)
        assert not file.exists()
        (folder / "left over").write_bytes(b"rubbish")
    assert not folder.exists()
    assert digest == digest_of(b"layer" * 100_000)
    assert store.get(digest) == b"layer" * 100_000


@pytest.mark.parametrize("plant", ["folder", "symlink", "fifo", "absent"])
def test_only_a_regular_file_is_adopted(store, plant):
    with store.scratch() as folder:
        (folder / "target").write_bytes(b"elsewhere")
        path = folder / "plant"
        match plant:
            case "folder":
                path.mkdir()
            case "symlink":
                path.symlink_to("target")
            case "fifo":
                os.mkfifo(path)
        with pytest.raises(StoreError):
            store.adopt(path)


def test_putting_twice_changes_nothing(store):
    first = store.put(b"twice")
    path = store.path(first)
    before = path.stat()
    assert store.put(b"twice") == first
    assert path.stat().st_ino == before.st_ino


def test_blobs_can_be_read_by_all_and_written_by_none(store):
    path = store.path(store.put(b"public"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_a_damaged_blob_is_absent_and_can_be_put_again(tmp_path):
    store = make_local(tmp_path)
    digest = store.put(b"good bytes")
    path = store.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"evil bytes")
    for read in (store.get, store.open, store.path):
        with pytest.raises(MissingBlobError):
            read(digest)
    assert not store.has(digest)
    assert store.put(b"good bytes") == digest
    assert store.get(digest) == b"good bytes"


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "A" * 64, "g" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_a_digest_names_a_blob(store, bad):
    for ask in (store.has, store.get, store.open, store.path, store.size):
        with pytest.raises(ValueError, match="not a BLAKE3 digest"):
            ask(bad)


def test_threads_put_and_read_the_same_blobs(store):
    blobs = [bytes([n]) * 70_000 for n in range(12)]
    faults = []

    def work():
        try:
            for data in blobs:
                assert store.get(store.put(data)) == data
        except BaseException as error:  # noqa: BLE001 - reported below, in the test's own thread
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
