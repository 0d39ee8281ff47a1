"""Paths inside an image: as the kernel resolves them in a chroot, and never out of the root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from elf.folder_view import FolderView
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.resolve import MAX_LINKS, find_path, resolve_path

NAMES = ("a", "b", "c")


def make(root, links=(), files=(), folders=()):
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)
    for path, target in links:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    return FolderView(root)


@pytest.fixture
def view(tmp_path):
    return make(
        tmp_path,
        files=("usr/lib/libc.so.6", "usr/bin/python3.11"),
        links=(
            ("lib", "usr/lib"),
            ("bin", "/usr/bin"),
            ("usr/bin/python3", "python3.11"),
            ("usr/bin/python", "/bin/python3"),
            ("up", "../../../../usr"),
            ("loop", "loop"),
            ("dangling", "nowhere/x"),
        ),
    )


@pytest.mark.parametrize(
    ("path", "resolved", "links"),
    [
        (b"/", b"/", []),
        (b"/usr/lib/libc.so.6", b"/usr/lib/libc.so.6", []),
        (b"/lib/libc.so.6", b"/usr/lib/libc.so.6", [b"/lib"]),
        (b"/bin/python", b"/usr/bin/python3.11", [b"/bin", b"/usr/bin/python", b"/bin", b"/usr/bin/python3"]),
        (b"/up/lib/", b"/usr/lib", [b"/up"]),
        (b"/../../usr/./lib//libc.so.6", b"/usr/lib/libc.so.6", []),
        (b"/lib/../bin/python3", b"/usr/bin/python3.11", [b"/lib", b"/usr/bin/python3"]),
        (b"/usr/..", b"/", []),
    ],
)
def test_a_path_is_followed_inside_the_root(view, path, resolved, links):
    found = resolve_path(view, path)
    assert found.path == resolved
    assert [link.path for link in found.links] == links
    assert found.entry.path == resolved


@pytest.mark.parametrize("path", [b"/nowhere", b"/dangling", b"/usr/lib/libc.so.6/x", b"/usr/lib/libc.so.6/..", b"/nowhere/.."])
def test_a_path_that_leads_nowhere_is_a_usage_error(view, path):
    assert find_path(view, path) is None
    with pytest.raises(UsageError, match="does not exist in the image"):
        resolve_path(view, path)


@pytest.mark.parametrize("path", [b"", b"usr", b"/a\0b", b"/" + b"a" * 5000])
def test_what_is_no_absolute_path_is_refused(view, path):
    with pytest.raises(UsageError, match="not an absolute path"):
        find_path(view, path)


def test_a_loop_is_found(view):
    with pytest.raises(UsageError, match="more than 40 symlinks"):
        find_path(view, b"/loop")


def test_as_many_links_as_the_kernel_follows_are_followed(tmp_path):
    view = make(
        tmp_path,
        files=("end",),
        links=[(f"l{number}", f"l{number + 1}") for number in range(MAX_LINKS)] + [(f"l{MAX_LINKS}", "end")],
    )
    assert resolve_path(view, b"/l1").path == b"/end"
    with pytest.raises(UsageError, match="symlinks"):
        resolve_path(view, b"/l0")


def test_links_that_double_at_every_step_end(tmp_path):
    links = [(f"d{number}", f"d{number + 1}/../d{number + 1}") for number in range(30)]
    view = make(tmp_path, folders=("d30",), links=links)
    with pytest.raises(UsageError, match="symlinks"):
        find_path(view, b"/d0")


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.lists(st.sampled_from([*NAMES, "..", "", "."]), min_size=1, max_size=4),
        max_size=5,
    ),
    st.lists(st.sampled_from([*NAMES, "..", "."]), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_any_path_leads_where_the_kernel_says(tmp_path_factory, links, parts):
    """The answer of a process whose root is the folder."""
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    root = tmp_path_factory.mktemp("root")
    view = make(
        root, folders=NAMES, links=[(f"{first}/{second}", "/".join(target) or ".") for (first, second), target in links.items()]
    )
    path = "/" + "/".join(parts)
    try:
        mine = find_path(view, path.encode())
        answer = mine.path.decode() if mine else None
    except UsageError:
        answer = None
    assert answer == kernel(root, path)


def kernel(root: Path, path: str) -> str | None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chroot(root)
            os.write(writer, os.fsencode(os.path.realpath(path, strict=True)))
        except OSError:
            pass
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as result:
        answer = result.read().decode()
    os.waitpid(child, 0)
    return answer or None


def test_the_kind_of_what_is_found_is_told(view):
    assert resolve_path(view, b"/bin").entry.kind is Kind.DIR
    assert resolve_path(view, b"/bin/python").entry.kind is Kind.FILE


def test_this_machine_s_own_root_is_walked():
    expected = subprocess.run(["readlink", "-f", "/bin/sh"], capture_output=True, check=True).stdout.strip()
    assert resolve_path(FolderView(Path("/")), b"/bin/sh").path == expected
