"""Layers in the store: the same bytes whether they are hashed while they are written or afterwards."""

from __future__ import annotations

import hashlib
import os

import pytest
from blake3 import blake3

from sconify_cache.local import LocalStore
from sconify_tasks import layers
from sconify_tasks.errors import SconifyError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.tar_write import FileRange
from sconify_tasks.layers import store_layer

SIZES = (0, 1, 511, 65_535, 65_536, 1_000_001)


def items(source):
    found, offset = [(Entry(path=b"/d", kind=Kind.DIR, mode=0o755), None)], 7
    for number, size in enumerate(SIZES):
        entry = Entry(path=b"/d/%d" % number, kind=Kind.FILE, size=size)
        found.append((entry, FileRange(path=source, offset=offset, length=size)))
        offset += size
    found.append((Entry(path=b"/d/in-memory", kind=Kind.FILE, size=4), b"1234"))
    found.append((Entry(path=b"/d/z", kind=Kind.FILE, hardlink=b"/d/5"), None))
    return found


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(os.urandom(7 + sum(SIZES)))
    return path


@pytest.mark.parametrize("large", [0, 1 << 40])
def test_a_layer_has_the_digests_of_its_bytes_and_each_file_where_it_is_said_to_begin(source, tmp_path, monkeypatch, large):
    monkeypatch.setattr(layers, "_LARGE", large)
    store = LocalStore(tmp_path / "store")
    made = store_layer(store, items(source))
    data = store.get(made.blob)
    assert (len(data), made.diff_id) == (made.size, f"sha256:{hashlib.sha256(data).hexdigest()}")
    assert made.blob == blake3(data).hexdigest()
    whole, offset = source.read_bytes(), 7
    for number, size in enumerate(SIZES):
        at = made.offsets[b"/d/%d" % number]
        assert data[at : at + size] == whole[offset : offset + size]
        offset += size
    monkeypatch.setattr(layers, "_LARGE", 1 << 40 if large == 0 else 0)
    assert store_layer(store, items(source)) == made, "hashed the other way"


@pytest.mark.parametrize("large", [0, 1 << 40])
def test_a_source_that_became_shorter_leaves_nothing(source, tmp_path, monkeypatch, large):
    monkeypatch.setattr(layers, "_LARGE", large)
    store = LocalStore(tmp_path / "store")
    os.truncate(source, 7 + sum(SIZES) - 1)
    with pytest.raises(SconifyError):
        store_layer(store, items(source))
    assert list(store.iterate()) == []
    assert [path for path in (tmp_path / "store" / "tmp").rglob("*") if path.is_file() and path.suffix != ".lease"] == []
