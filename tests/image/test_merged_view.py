# ruff: noqa: PTH118, PTH119, PTH120
# Paths are bytes here, which pathlib has not.
"""Layers united as the overlay file system does it."""

from __future__ import annotations

import io
import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts.images import file, folder, layer_bytes, symlink

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import read_layer
from sconify_tasks.image.merge import MergedView


def with_whiteouts(data, *names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        with tarfile.open(fileobj=io.BytesIO(data)) as before:
            for info in before:
                archive.addfile(info, before.extractfile(info) if info.isreg() else None)
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def view(*layers):
    return MergedView([read_layer(io.BytesIO(data), layer=number) for number, data in enumerate(layers)])


def paths(merged):
    return [found.entry.path for found in merged.walk([b"/"])][1:]


def test_the_upper_file_hides_the_lower():
    merged = view(layer_bytes(file(b"/a", b"lower")), layer_bytes(file(b"/a", b"up")))
    found = merged.lstat(b"/a")
    assert (found.layer, found.entry.size) == (1, 2)


def test_a_whiteout_deletes_below_and_not_beside():
    lower = layer_bytes(folder(b"/d"), file(b"/d/a"), file(b"/d/b"), folder(b"/e"), file(b"/e/x"))
    upper = with_whiteouts(layer_bytes(folder(b"/d"), file(b"/d/a", b"new")), "d/.wh.a", "d/.wh.b", ".wh.e", ".wh.never")
    merged = view(lower, upper)
    assert paths(merged) == [b"/d", b"/d/a"]
    assert merged.lstat(b"/d/a").layer == 1


def test_an_opaque_directory_keeps_only_its_own_layer():
    lower = layer_bytes(folder(b"/d", 0o700), file(b"/d/a"), file(b"/z"))
    merged = view(lower, with_whiteouts(layer_bytes(folder(b"/d"), file(b"/d/b")), "d/.wh..wh..opq"))
    assert paths(merged) == [b"/d", b"/d/b", b"/z"]
    assert merged.lstat(b"/d").entry.mode == 0o755


def test_a_directory_replaces_a_symlink_and_hides_what_it_led_to():
    lower = layer_bytes(symlink(b"/lib", b"usr/lib"), folder(b"/usr"), folder(b"/usr/lib"), file(b"/usr/lib/x"))
    merged = view(lower, layer_bytes(folder(b"/lib"), file(b"/lib/y")))
    assert merged.lstat(b"/lib").entry.kind is Kind.DIR
    assert merged.listdir(b"/lib") == [b"y"]
    assert merged.lstat(b"/lib/x") is None


def test_an_implied_parent_keeps_the_lower_directorys_metadata():
    merged = view(layer_bytes(folder(b"/d", 0o700, uid=7)), layer_bytes(file(b"/d/new")))
    assert merged.lstat(b"/d").entry == Entry(path=b"/d", kind=Kind.DIR, mode=0o700, uid=7)
    assert view(layer_bytes(file(b"/implied/new"))).lstat(b"/implied").entry.mode == 0o755


def test_a_file_replaces_a_directory_with_all_below():
    merged = view(layer_bytes(folder(b"/d"), file(b"/d/a")), layer_bytes(file(b"/d", b"f")))
    assert paths(merged) == [b"/d"]


def test_hard_links_share_content_and_survive_their_target():
    lower = layer_bytes(file(b"/a", b"shared", mode=0o600), (Entry(path=b"/b", kind=Kind.FILE, size=6, hardlink=b"/a"), None))
    merged = view(lower)
    assert [found.entry.hardlink for found in merged.walk([b"/a", b"/b"])] == [b"", b"/a"]
    assert merged.lstat(b"/b").offset == merged.lstat(b"/a").offset
    assert merged.lstat(b"/b").entry == Entry(path=b"/b", kind=Kind.FILE, size=6, mode=0o600)
    alone = view(lower, with_whiteouts(layer_bytes(), ".wh.a"))
    assert [(found.entry.path, found.entry.hardlink) for found in alone.walk([b"/b"])] == [(b"/b", b"")]


def test_overlapping_roots_are_walked_once_and_missing_ones_are_named():
    merged = view(layer_bytes(folder(b"/d"), file(b"/d/a"), file(b"/d-x")))
    assert [found.entry.path for found in merged.walk([b"/d/a", b"/d", b"/d", b"/d-x"])] == [b"/d", b"/d/a", b"/d-x"]
    with pytest.raises(UsageError, match="/nope does not exist"):
        list(merged.walk([b"/nope"]))


def test_deep_trees_do_not_exhaust_the_stack():
    deep = b"/a" * 2000
    merged = view(layer_bytes(file(deep)), layer_bytes(file(deep, b"x")))
    assert merged.lstat(deep).entry.size == 1
    assert len(paths(merged)) == 2000


NAMES = st.sampled_from([b"a", b"b", b"c"])
TREE = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts)), st.sampled_from("fdlw")),
    max_size=8,
)


def consistent(changes):
    """One kind per path, and only directories have children: what a real layer looks like."""
    chosen = {}
    for path, kind in changes:
        above = [b"/".join(path.split(b"/")[:depth]) for depth in range(2, path.count(b"/") + 1)]
        if (
            path in chosen
            or any(other.startswith(path + b"/") for other in chosen)
            or any(chosen.get(parent, "d") != "d" for parent in above)
        ):
            continue
        chosen.update(dict.fromkeys(above, "d"))
        chosen[path] = kind
    return chosen


def as_layer(chosen):
    items = [
        file(path, path) if kind == "f" else folder(path) if kind == "d" else symlink(path, b"t")
        for path, kind in chosen.items()
        if kind != "w"
    ]
    gone = [path[1:].decode() for path, kind in chosen.items() if kind == "w"]
    return with_whiteouts(
        layer_bytes(*items), *[os.path.join(os.path.dirname(path), ".wh." + os.path.basename(path)) for path in gone]
    )


@settings(max_examples=120, deadline=None)
@given(st.lists(TREE.map(consistent), min_size=1, max_size=3))
def test_the_view_equals_what_a_plain_model_says(layers):
    model = {}
    for chosen in layers:
        for path, kind in chosen.items():
            if kind == "w" or (kind != "d" and path in model) or (kind == "d" and model.get(path, "d") != "d"):
                model = {other: value for other, value in model.items() if other != path and not other.startswith(path + b"/")}
        model.update({path: kind for path, kind in chosen.items() if kind != "w"})
    merged = view(*[as_layer(chosen) for chosen in layers])
    kinds = {Kind.FILE: "f", Kind.DIR: "d", Kind.SYMLINK: "l"}
    assert {found.entry.path: kinds[found.entry.kind] for found in merged.walk([b"/"])} == {b"/": "d", **model}
