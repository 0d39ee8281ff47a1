"""A shared cache that is poisoned, broken or full can miss, and nothing else."""

import pytest
from blake3 import blake3

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.layered import LayeredStore
from sconify_cache.local import LocalStore
from sconify_cache.store import MissingBlobError


@pytest.fixture
def near(tmp_path):
    return LocalStore(tmp_path / "near")


@pytest.fixture
def far(tmp_path):
    return LocalStore(tmp_path / "far", shared=True)


def digest_of(data: bytes) -> Digest:
    return Digest(blake3(data).hexdigest())


def overwrite(store, digest, data):
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(data)


class BrokenStore:
    """A far store whose disk fails, before or while it is read."""

    def __init__(self, stream=None):
        self.stream = stream

    def open(self, _digest):
        if self.stream is None:
            raise StoreError("far: Input/output error")
        return self.stream

    has = size = get = writer = open  # noqa: A003


def test_what_lies_far_is_copied_near_and_then_read_near(near, far):
    digest = far.put(b"shared" * 100_000)
    store = LayeredStore(near, [far])
    assert store.has(digest)
    assert near.get(digest) == b"shared" * 100_000
    far.delete(digest)
    assert store.path(digest) == near.path(digest)


@pytest.mark.parametrize("poison", [b"", b"evil", b"shared!"], ids=["empty", "other", "longer"])
def test_a_poisoned_far_blob_is_a_miss_and_nothing_of_it_is_kept(near, far, tmp_path, poison):
    digest = far.put(b"shared")
    overwrite(far, digest, poison)
    store = LayeredStore(near, [LocalStore(tmp_path / "far", shared=True)])
    assert not store.has(digest)
    with pytest.raises(MissingBlobError):
        store.get(digest)
    assert list(near.iterate()) == []


def test_a_far_blob_that_changes_after_it_was_verified_is_a_miss(near, far, tmp_path):
    digest = far.put(b"shared" * 100)

    class Racing(LocalStore):
        def open(self, wanted):
            stream = super().open(wanted)
            overwrite(far, wanted, b"poison" * 100)
            return stream

    store = LayeredStore(near, [Racing(tmp_path / "far", shared=True)])
    assert not store.has(digest)
    assert list(near.iterate()) == []


def test_the_next_far_store_is_asked_when_one_is_poisoned(near, far, tmp_path):
    other = LocalStore(tmp_path / "other", shared=True)
    digest = far.put(b"shared")
    other.put(b"shared")
    overwrite(far, digest, b"poison")
    assert LayeredStore(near, [LocalStore(tmp_path / "far", shared=True), other]).get(digest) == b"shared"


def test_public_blobs_are_published_and_private_ones_are_not(near, far, tmp_path):
    store = LayeredStore(near, publish=[far])
    public = [store.put(b"public")]
    store.put(b"private", private=True)
    for private in (False, True):
        with store.writer(private=private) as blob:
            blob.write(b"written %d" % private)
        with store.scratch() as folder:
            (folder / "file").write_bytes(b"adopted %d" % private)
            adopted = store.adopt(folder / "file", private=private)
        if not private:
            public += [blob.digest, adopted]
    assert {blob.digest for blob in far.iterate()} == set(public)
    assert len(list(near.iterate())) == 6


def test_a_failing_far_store_is_reported_and_the_build_goes_on(near, tmp_path):
    troubles = []
    closed = (tmp_path / "closed").open("wb+")
    closed.close()

    class Failing:
        def read(self, _size):
            raise OSError(5, "Input/output error")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    for broken in (BrokenStore(), BrokenStore(Failing())):
        troubles.clear()
        store = LayeredStore(near, [broken], trouble=troubles.append)
        assert not store.has(digest_of(b"wanted"))
        assert [type(trouble) for trouble in troubles] == [StoreError]
    assert list(near.iterate()) == []


def test_publishing_to_a_broken_store_is_reported_and_the_blob_is_kept(near, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    troubles = []
    store = LayeredStore(near, publish=[LocalStore(tmp_path / "file" / "store", shared=True)], trouble=troubles.append)
    digest = store.put(b"kept")
    assert near.get(digest) == b"kept"
    assert len(troubles) == 1


def test_damage_near_is_healed_from_afar(near, far):
    store = LayeredStore(near, [far], publish=[far])
    digest = store.put(b"healed")
    overwrite(near, digest, b"broken")
    assert store.get(digest) == b"healed"
