"""The embedded file system's format: the vectors, round trips, and bytes that somebody changed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors.binary_fs import directory, link, raw_index, written
from vectors.pattern import pattern

from sconify_tasks.binary_fs.index import HEADER, decode_index, encode_index
from sconify_tasks.binary_fs.reading import open_section
from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.errors import MalformedError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "binary_fs.json").read_text())
CHUNK = 65536


def named(cases):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases])


def section_of(case):
    data = b"".join(pattern(size) for size in case["data"])
    return bytes.fromhex(case["header"]) + data + bytes.fromhex(case["index"])


def opened(stored, root):
    return open_section(io.BytesIO(b"before" + stored), offset=6, size=len(stored), root=root)


def contents_of(section):
    return {path: b"".join(section.read(extent)) for path, extent in section.index.extents.items()}


@named(VECTORS["cases"])
def test_a_section_is_read_and_its_index_written_as_the_vector_says(case):
    section = opened(section_of(case), bytes.fromhex(case["root"]))
    assert contents_of(section) == {bytes.fromhex(path): pattern(size) for path, size in case["files"].items()}
    assert encode_index(section.index).hex() == case["index"]


@named(VECTORS["refused"])
def test_a_wrong_section_is_refused_for_its_own_reason(case):
    with pytest.raises(MalformedError) as refusal:
        opened(section_of(case), bytes.fromhex(case["root"]))
    assert (refusal.value.code, refusal.value.exit_code) == (case["error"], 4)


def test_a_changed_chunk_is_refused_and_the_others_are_read():
    root, stored = written([directory(b"/d")], {b"/d/a": pattern(CHUNK), b"/d/b": pattern(2 * CHUNK + 3)})
    changed = bytearray(stored)
    changed[HEADER.size + CHUNK + CHUNK + 10] ^= 1
    section = opened(bytes(changed), root)
    assert b"".join(section.read(section.index.extents[b"/d/a"])) == pattern(CHUNK)
    with pytest.raises(MalformedError) as refusal:
        list(section.read(section.index.extents[b"/d/b"]))
    assert refusal.value.code == "chunk"


@pytest.mark.parametrize("where", ["header", "data", "index", "end"])
def test_every_byte_of_a_section_is_covered_by_the_root_hash(where):
    root, stored = written([directory(b"/d")], {b"/d/a": pattern(300), b"/d/b": pattern(CHUNK + 1)})
    edges = {"header": (0, HEADER.size), "data": (HEADER.size, HEADER.size + 300), "end": (len(stored) - 1, len(stored))}
    first, last = edges.get(where, (len(stored) - 120, len(stored) - 1))
    for at in range(first, last):
        changed = bytearray(stored)
        changed[at] ^= 0x10
        with pytest.raises(SconifyError):
            contents_of(opened(bytes(changed), root))


names = st.lists(st.sampled_from(["a", "b", "ü", "x y", ".hidden"]), min_size=1, max_size=2).map("/".join)
trees = st.dictionaries(names, st.integers(0, 70_000), max_size=5)


@given(trees)
@settings(max_examples=40, deadline=None)
def test_whatever_is_embedded_is_read_again(tree):
    contents = {f"/{number}/{name}".encode(): pattern(size) for number, (name, size) in enumerate(sorted(tree.items()))}
    above = {parent for path in contents for parent in _above(path)}
    root, stored = written([*map(directory, sorted(above)), link(b"/z", b"/0")], dict(sorted(contents.items())))
    assert contents_of(opened(stored, root)) == contents


def _above(path):
    parts = path.split(b"/")
    return [b"/".join(parts[:end]) for end in range(2, len(parts))]


@given(st.binary(max_size=400), st.integers(0, 2**20))
@settings(max_examples=300, deadline=None)
def test_any_bytes_for_an_index_are_refused_without_a_crash(body, data):
    with pytest.raises(MalformedError):
        decode_index(body, data=data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_index_is_read_as_something_proper_or_refused(data):
    case = VECTORS["cases"][1]
    index = bytearray(bytes.fromhex(case["index"]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(index) - 1))
        index[at] = data.draw(st.integers(0, 255))
    try:
        found = decode_index(bytes(index), data=sum(case["data"]))
    except MalformedError:
        return
    assert encode_index(found) == bytes(index)


def test_a_hostile_count_allocates_nothing():
    index = raw_index([directory(b"/d")], [], count=2**32 - 1)
    with pytest.raises(MalformedError) as refusal:
        decode_index(index, data=0)
    assert refusal.value.code == "truncated"
