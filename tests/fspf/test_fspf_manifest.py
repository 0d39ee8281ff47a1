"""Manifests and trees: what is encoded decodes, hostile bytes are refused, and what the runtime relies on is checked."""

from __future__ import annotations

import hashlib
import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from vectors.make import ENTRIES, KEY, REGIONS, entry

from sconify_tasks.fspf.entries import Flag, ManifestEntry, encode_entries
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.manifest import (
    Manifest,
    check_manifest,
    decode_body,
    encode_body,
    fspf_tag,
    open_manifest,
    seal_manifest,
)
from sconify_tasks.fspf.names import stored_path, x_name
from sconify_tasks.fspf.regions import MAX_PATH, Protection, Region, Regions, check_path
from sconify_tasks.fspf.stream import seal
from sconify_tasks.fspf.tree import decode_tree, encode_tree
from sconify_tasks.fspf.verify import verify_stored
from sconify_tasks.image.entry import Entry, Kind

COMPONENT = st.binary(min_size=1, max_size=6).filter(lambda part: not {0, 47} & set(part) and part not in (b".", b".."))
PATH = st.lists(COMPONENT, max_size=4).map(lambda parts: b"/" + b"/".join(parts))
U32 = st.integers(0, 0xFFFFFFFF)
XATTRS = st.dictionaries(
    st.binary(min_size=1, max_size=9).filter(lambda name: 0 not in name), st.binary(max_size=9), max_size=3
)


@st.composite
def tree_entries(draw):
    paths = draw(st.sets(PATH, max_size=8))
    return [draw(one_entry(path)) for path in sorted(paths)]


@st.composite
def one_entry(draw, path):
    kind = draw(st.sampled_from(Kind))
    meta = Entry(
        path=path,
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(U32),
        gid=draw(U32),
        mtime=draw(st.integers(-(1 << 62), 1 << 62)),
        size=draw(st.integers(0, 1 << 60)) if kind is Kind.FILE else 0,
        target=draw(st.binary(min_size=1, max_size=9).filter(lambda target: 0 not in target)) if kind is Kind.SYMLINK else b"",
        rdev=(draw(U32), draw(U32)) if kind in (Kind.CHAR, Kind.BLOCK) else (0, 0),
        xattrs=tuple(sorted(draw(XATTRS).items())),
    )
    content = draw(st.binary(min_size=32, max_size=32)) if kind is Kind.FILE else b""
    return ManifestEntry(meta=meta, flags=Flag(draw(st.integers(0, 15))), content=content)


@given(tree_entries())
@settings(max_examples=100, deadline=None)
def test_a_tree_decodes_to_what_was_encoded(entries):
    assert list(decode_tree(encode_tree(entries))) == entries


@given(tree_entries(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_cut_tree_is_refused(entries, data):
    encoded = encode_tree(entries)
    with pytest.raises(MalformedError) as refusal:
        decode_tree(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    assert refusal.value.code == "truncated"


@given(tree_entries(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_tree_is_refused_or_is_another_proper_tree(entries, data):
    """Whatever decodes must encode to the same bytes: no two spellings of one tree."""
    encoded = bytearray(encode_tree(entries))
    for position in data.draw(st.lists(st.integers(0, len(encoded) - 1), min_size=1, max_size=3)):
        encoded[position] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_tree(bytes(encoded))
    except MalformedError:
        return
    assert encode_tree(decoded) == bytes(encoded)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_as_a_manifest_body_are_refused_or_proper(body):
    try:
        decoded = decode_body(struct.pack("<I", 1) + b"\1\0/\0\0" + body)
    except MalformedError:
        return
    assert encode_body(decoded) == struct.pack("<I", 1) + b"\1\0/\0\0" + body


def test_a_tree_is_sorted_whatever_the_order_given():
    assert encode_tree(reversed(decode_tree(encode_tree(TREE)))) == encode_tree(TREE)


TREE = [replace(found, protection=Protection.NONE) for found in ENTRIES]


def test_a_tree_with_a_path_twice_can_not_be_made():
    with pytest.raises(ValueError, match="twice"):
        encode_tree([TREE[0], TREE[0]])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"SCONTREF" + bytes(8), "magic"),
        (b"SCONTREE" + struct.pack("<II", 2, 0), "version"),
        (b"SCONTREE" + struct.pack("<II", 1, 0) + b"\0", "trailing"),
        (b"SCONTREE" + struct.pack("<II", 1, 0xFFFFFFFF), "truncated"),
        (b"", "truncated"),
        (b"SCONTREE" + struct.pack("<I", 1) + encode_entries(ENTRIES[:1]), "class"),
    ],
)
def test_what_is_no_tree_is_refused(data, code):
    with pytest.raises(MalformedError) as refusal:
        decode_tree(data)
    assert refusal.value.code == code


def test_a_manifest_is_opened_only_with_its_key_and_tag():
    stored = seal_manifest(KEY, Manifest(regions=REGIONS, entries=ENTRIES))
    assert open_manifest(KEY, fspf_tag(stored), stored).entries == ENTRIES
    with pytest.raises(MalformedError) as refusal:
        open_manifest(KEY, bytes(16), stored)
    assert refusal.value.code == "tag"
    with pytest.raises(MalformedError) as refusal:
        open_manifest(bytes(32), fspf_tag(stored), stored)
    assert refusal.value.code == "authentication"


def test_the_same_manifest_gives_the_same_bytes():
    manifest = Manifest(regions=REGIONS, entries=ENTRIES)
    assert seal_manifest(KEY, manifest) == seal_manifest(KEY, manifest)


def without(path):
    return tuple(found for found in ENTRIES if found.path != path)


def changed(path, **changes):
    return tuple(replace(found, **changes) if found.path == path else found for found in ENTRIES)


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        pytest.param(without(b"/usr/bin"), "ancestor", id="a gap above an entry"),
        pytest.param(without(b"/usr"), "ancestor", id="a gap higher up"),
        pytest.param(changed(b"/usr", flags=Flag(0)), "ancestor", id="an ancestor that is not pinned"),
        pytest.param(changed(b"/app/main.py", protection=Protection.NONE), "class", id="plain in an encrypted region"),
        pytest.param(changed(b"/app/main.py", protection=Protection.AUTHENTICATED), "class", id="only authenticated there"),
        pytest.param(changed(b"/app/public/index", protection=Protection.ENCRYPTED), "class", id="more than its region"),
        pytest.param(changed(b"/usr/lib/ld.so", protection=Protection.NONE), "class", id="unverified outside of regions"),
        pytest.param(changed(b"/app/run", flags=Flag(0)), "flags", id="an executable's ciphertext at its path"),
        pytest.param(changed(b"/app/main.py", flags=Flag.STORED_X), "flags", id="STORED_X without an execute bit"),
        pytest.param(changed(b"/app", flags=Flag.CLOSURE), "flags", id="a directory of the closure"),
    ],
)
def test_a_manifest_that_the_runtime_can_not_rely_on_is_not_sealed(entries, code):
    with pytest.raises(MalformedError) as refusal:
        seal_manifest(KEY, Manifest(regions=REGIONS, entries=entries))
    assert refusal.value.code == code


def test_a_file_is_no_ancestor():
    entries = (entry(b"/app", Kind.FILE, Protection.ENCRYPTED), entry(b"/app/x", Kind.DIR))
    with pytest.raises(MalformedError) as refusal:
        check_manifest(Manifest(regions=REGIONS, entries=entries))
    assert refusal.value.code == "ancestor"


@pytest.mark.parametrize(
    ("path", "protection"),
    [
        (b"/", Protection.NONE),
        (b"/application", Protection.NONE),
        (b"/app", Protection.ENCRYPTED),
        (b"/app/public", Protection.AUTHENTICATED),
        (b"/app/publicity", Protection.ENCRYPTED),
        (b"/app/public/a/b", Protection.AUTHENTICATED),
        (b"/app/tmp/a", Protection.NONE),
    ],
)
def test_the_longest_prefix_of_whole_components_decides(path, protection):
    assert REGIONS.protection(path) is protection


def test_regions_need_one_for_the_root_and_no_path_twice():
    with pytest.raises(MalformedError) as refusal:
        Regions.of([Region(path=b"/a", protection=Protection.ENCRYPTED)])
    assert refusal.value.code == "root-region"
    with pytest.raises(MalformedError) as refusal:
        Regions.of([Region(path=b"/", protection=Protection.ENCRYPTED), Region(path=b"/", protection=Protection.NONE)])
    assert refusal.value.code == "duplicate"


@pytest.mark.parametrize("path", [b"", b"a", b"/a/", b"//", b"/a//b", b"/.", b"/a/..", b"/a\0b", b"/" + MAX_PATH * b"a"])
def test_a_path_that_is_not_normalised_is_refused(path):
    with pytest.raises(MalformedError) as refusal:
        check_path(path)
    assert refusal.value.code == "path"


def test_an_executable_lies_under_its_name_and_everything_else_at_its_path():
    executable, other = entry(b"/app/run", Kind.FILE, flags=Flag.STORED_X, content=b"run"), entry(b"/app/x", Kind.FILE)
    name = x_name(KEY, hashlib.sha256(b"run").digest())
    assert len(bytes.fromhex(name)) == 16
    assert stored_path(KEY, executable) == b"/fspf/x/" + name.encode()
    assert stored_path(KEY, other) == b"/app/x"


ENCRYPTED = entry(b"/app/x", Kind.FILE, Protection.ENCRYPTED, content=b"content")
PLAIN = entry(b"/usr/lib/x", Kind.FILE, Protection.AUTHENTICATED, content=b"content")


def test_stored_files_are_verified_against_their_entries():
    verify_stored(KEY, ENCRYPTED, io.BytesIO(seal(KEY, b"sconify/file/1", b"content")))
    verify_stored(KEY, PLAIN, io.BytesIO(b"content"))


@pytest.mark.parametrize(
    ("found", "stored", "code"),
    [
        (PLAIN, b"conten", "truncated"),
        (PLAIN, b"content!", "extended"),
        (PLAIN, b"kontent", "digest"),
        (ENCRYPTED, b"content", "truncated"),
        (ENCRYPTED, bytes(23), "authentication"),
        (ENCRYPTED, seal(KEY, b"sconify/file/1", b"content") + b"\0", "extended"),
        (entry(b"/app", Kind.DIR), b"", "kind"),
    ],
)
def test_a_stored_file_that_is_not_its_entry_s_is_refused_by_name(found, stored, code):
    with pytest.raises(MalformedError, match=found.path.decode()) as refusal:
        verify_stored(KEY, found, io.BytesIO(stored))
    assert refusal.value.code == code


def test_a_manifest_of_many_entries_is_handled():
    entries = [entry(b"/app", Kind.DIR, Protection.ENCRYPTED)]
    entries += [replace(ENCRYPTED, meta=replace(ENCRYPTED.meta, path=b"/app/%06d" % number)) for number in range(20_000)]
    stored = seal_manifest(KEY, Manifest(regions=REGIONS, entries=tuple(entries)))
    assert len(open_manifest(KEY, fspf_tag(stored), stored).entries) == 20_001
