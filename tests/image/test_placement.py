"""Our entries over a base: no symlink of the base is destroyed, no directory made twice."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts.images import file, folder, layer_bytes, symlink

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import read_layer
from sconify_tasks.image.merge import MergedView
from sconify_tasks.image.placement import place

USR_MERGED = (
    folder(b"/usr"),
    folder(b"/usr/lib"),
    symlink(b"/lib", b"usr/lib"),
    folder(b"/etc"),
    file(b"/etc/passwd"),
    symlink(b"/bad", b"nowhere/x"),
)


def base_of(*items):
    merged = MergedView([read_layer(io.BytesIO(layer_bytes(*items)), layer=0)])

    def lstat(path):
        found = merged.lstat(path)
        return found.entry if found else None

    return lstat


def placed(base, *items, native=lambda path: None):
    return [(entry.path, entry.kind) for entry, _ in place(items, base=base_of(*base), native=native, missing=None)]


def test_a_path_goes_where_the_bases_symlink_leads():
    assert placed(USR_MERGED, file(b"/lib/x")) == [(b"/usr/lib/x", Kind.FILE)]


def test_existing_parents_are_not_made_again_and_missing_ones_are():
    assert placed(USR_MERGED, file(b"/usr/lib/a/b/c")) == [
        (b"/usr/lib/a", Kind.DIR), (b"/usr/lib/a/b", Kind.DIR), (b"/usr/lib/a/b/c", Kind.FILE),
    ]  # fmt: skip


def test_missing_parents_look_as_in_the_native_image():
    native = {
        b"/srv": Entry(path=b"/srv", kind=Kind.DIR, mode=0o2750, uid=5),
        b"/srv/a": Entry(path=b"/srv/a", kind=Kind.SYMLINK),
    }
    found = {entry.path: entry for entry, _ in place([file(b"/srv/a/f")], base=base_of(), native=native.get, missing=None)}
    assert (found[b"/srv"].mode, found[b"/srv"].uid) == (0o2750, 5)
    assert (found[b"/srv/a"].kind, found[b"/srv/a"].mode, found[b"/srv/a"].uid) == (Kind.DIR, 0o755, 0)


def test_a_directory_over_a_symlink_to_a_directory_is_that_directory():
    assert placed(USR_MERGED, folder(b"/lib"), file(b"/lib/x")) == [(b"/usr/lib/x", Kind.FILE)]
    assert placed(USR_MERGED, folder(b"/lib", 0o700)) == [(b"/usr/lib", Kind.DIR)]


def test_a_directory_over_a_dangling_symlink_makes_what_it_names():
    assert placed(USR_MERGED, folder(b"/bad")) == [(b"/nowhere", Kind.DIR), (b"/nowhere/x", Kind.DIR)]


def test_an_equal_symlink_is_not_written_again_however_it_is_spelled():
    assert placed(USR_MERGED, symlink(b"/lib", b"usr/lib"), file(b"/lib/x")) == [(b"/usr/lib/x", Kind.FILE)]
    assert placed(USR_MERGED, symlink(b"/lib", b"/usr/./lib/"), file(b"/lib/x")) == [(b"/usr/lib/x", Kind.FILE)]


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (folder(b"/etc/passwd"), "would replace a file"),
        (file(b"/etc"), "would replace a directory"),
        (symlink(b"/etc", b"usr"), "would replace a directory"),
        (file(b"/etc/passwd/x"), "lies under /etc/passwd"),
        (symlink(b"/lib", b"etc"), "symlink to the directory /usr/lib"),
    ],
)
def test_collisions_are_usage_errors(item, why):
    with pytest.raises(UsageError, match=why):
        placed(USR_MERGED, item)


def test_files_and_links_may_replace_files_and_links():
    assert placed(USR_MERGED, file(b"/etc/passwd", b"x")) == [(b"/etc/passwd", Kind.FILE)]
    assert placed(USR_MERGED, symlink(b"/etc/passwd", b"x")) == [(b"/etc/passwd", Kind.SYMLINK)]
    assert placed(USR_MERGED, file(b"/bad", b"x")) == [(b"/bad", Kind.FILE)]


def test_circles_end():
    with pytest.raises(UsageError, match="circle"):
        placed((symlink(b"/a", b"b"), symlink(b"/b", b"a")), file(b"/a/x"))


def test_a_base_cannot_lead_out_of_the_image():
    assert placed((symlink(b"/a", b"../../../../x"),), file(b"/a/f")) == [(b"/x", Kind.DIR), (b"/x/f", Kind.FILE)]


def test_two_entries_in_one_place_must_be_equal():
    assert placed(USR_MERGED, file(b"/lib/x", b"1"), file(b"/usr/lib/x", b"1")) == [(b"/usr/lib/x", Kind.FILE)]
    with pytest.raises(UsageError, match="would both be /usr/lib/x"):
        placed(USR_MERGED, file(b"/lib/x", b"1"), file(b"/usr/lib/x", b"2"))


def test_our_own_symlinks_count_too():
    assert placed((), symlink(b"/lib", b"usr/lib"), file(b"/lib/x")) == [
        (b"/lib", Kind.SYMLINK), (b"/usr", Kind.DIR), (b"/usr/lib", Kind.DIR), (b"/usr/lib/x", Kind.FILE),
    ]  # fmt: skip


def test_hard_links_follow_their_target():
    items = [file(b"/lib/x", b"1"), (Entry(path=b"/a", kind=Kind.FILE, size=1, hardlink=b"/lib/x"), None)]
    found = place(items, base=base_of(*USR_MERGED), missing=None)
    assert [(entry.path, entry.hardlink) for entry, _ in found] == [(b"/usr/lib/x", b""), (b"/a", b"/usr/lib/x")]


PARTS = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
TARGETS = st.sampled_from([b"a", b"/b", b"../c", b"a/b", b"/", b"nowhere"])
ITEMS = st.lists(
    st.one_of(PATHS.map(file), PATHS.map(folder), st.builds(symlink, PATHS, TARGETS)),
    max_size=6,
    unique_by=lambda item: item[0].path,
)


@settings(max_examples=300, deadline=None)
@given(ITEMS, ITEMS)
def test_no_directory_of_the_base_is_ever_lost(lower, upper):
    try:
        base_layer = read_layer(io.BytesIO(layer_bytes(*lower)), layer=0)
    except UsageError:
        return
    before = {found.entry.path: found.entry.kind for found in MergedView([base_layer]).walk([b"/"])}
    try:
        items = place(upper, base=base_of(*lower), missing=None)
    except UsageError:
        return
    ours = layer_bytes(*items)
    both = MergedView([read_layer(io.BytesIO(layer_bytes(*lower)), layer=0), read_layer(io.BytesIO(ours), layer=1)])
    after = {found.entry.path: found.entry.kind for found in both.walk([b"/"])}
    for path, kind in before.items():
        assert path in after
        assert (kind is Kind.DIR) == (after[path] is Kind.DIR)
