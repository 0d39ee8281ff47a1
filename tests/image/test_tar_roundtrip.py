# ruff: noqa: PTH115, PTH116, PTH121, PTH208
# Paths are bytes here, which pathlib has not.
"""What our writer writes, our reader, tarfile and GNU tar read: the same entries."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import SconifyError, UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.tar_read import members
from sconify_tasks.image.tar_write import FileRange, TarWriter, order_key, write_tar

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and not name.startswith(b".wh.")
)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map(lambda parts: b"/" + b"/".join(parts))
IDS = st.integers(0, 2**32 - 1)
TIMES = st.integers(-(2**62), 2**62)
XATTRS = st.dictionaries(
    st.binary(min_size=1, max_size=60).filter(lambda key: b"=" not in key and b"\0" not in key).map(lambda key: b"user." + key),
    st.binary(max_size=300),
    max_size=3,
).map(lambda found: tuple(sorted(found.items())))
TARGETS = st.binary(min_size=1, max_size=4000).filter(lambda target: b"\0" not in target)


@st.composite
def an_entry(draw):
    kind = draw(st.sampled_from(Kind))
    content = draw(st.binary(max_size=2000)) if kind is Kind.FILE else None
    number = st.integers(0, 0o7777777)
    return (
        Entry(
            path=draw(PATHS),
            kind=kind,
            mode=draw(st.integers(0, 0o7777)),
            uid=draw(IDS),
            gid=draw(IDS),
            mtime=draw(TIMES),
            size=len(content or b""),
            target=draw(TARGETS) if kind is Kind.SYMLINK else b"",
            rdev=(draw(number), draw(number)) if kind in (Kind.CHAR, Kind.BLOCK) else (0, 0),
            xattrs=draw(XATTRS),
        ),
        content,
    )


LAYERS = st.lists(an_entry(), max_size=6, unique_by=lambda item: item[0].path)


def written(items):
    out = io.BytesIO()
    result = write_tar(sorted(items, key=lambda item: order_key(item[0])), out)
    return out.getvalue(), result


@settings(max_examples=150, deadline=None)
@given(LAYERS)
def test_a_layer_reads_back_as_it_was_written(items):
    data, result = written(items)
    found = [(member.entry, content.read() if content else None) for member, content in members(io.BytesIO(data))]
    assert found == sorted(items, key=lambda item: order_key(item[0]))
    assert result.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert result.size == len(data)


@settings(max_examples=80, deadline=None)
@given(LAYERS)
def test_tarfile_reads_the_same(items):
    data, _ = written(items)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf-8") as archive:
        for info, (entry, content) in zip(archive, sorted(items, key=lambda item: order_key(item[0])), strict=True):
            assert info.name.encode("utf-8", "surrogateescape").rstrip(b"/") == entry.path[1:].rstrip(b"/")
            assert (info.mode, info.uid, info.gid) == (entry.mode, entry.uid, entry.gid)
            assert info.linkname.encode("utf-8", "surrogateescape") == entry.target
            if content is not None:
                assert archive.extractfile(info).read() == content


def test_gnu_tar_extracts_it_all(tmp_path, need):
    long = b"/" + b"/".join([b"d" * 200, b"e" * 100])
    items = [
        (Entry(path=b"/" + b"d" * 200, kind=Kind.DIR, mode=0o750, mtime=5_500_000_000), None),
        (Entry(path=long, kind=Kind.FILE, mode=0o640, size=3, mtime=1_700_000_000_123_456_789), b"abc"),
        (Entry(path=b"/caf\xc3\xa9", kind=Kind.FILE, size=1), b"u"),
        (Entry(path=b"/latin-\xe9", kind=Kind.FILE, size=1), b"l"),
        (Entry(path=b"/link", kind=Kind.SYMLINK, target=b"../../etc/passwd"), None),
        (Entry(path=b"/zz", kind=Kind.FILE, size=1, hardlink=long), None),
        (
            Entry(path=b"/owned", kind=Kind.FILE, uid=3_000_000, gid=4_000_000, size=0, xattrs=((b"user.note", b"a\nb\0c"),)),
            b"",
        ),
    ]
    data, _ = written(items)
    tar = need("tar")
    (tmp_path / "root").mkdir()
    subprocess.run([tar, "-xp", "--xattrs", "-C", tmp_path / "root"], input=data, check=True, capture_output=True)
    root = os.fsencode(tmp_path / "root")
    status = os.stat(root + long)
    assert (status.st_mtime_ns, status.st_mode & 0o7777, status.st_nlink) == (1_700_000_000_123_456_789, 0o640, 2)
    assert os.path.samefile(root + long, root + b"/zz")
    assert os.readlink(root + b"/link") == b"../../etc/passwd"
    assert {b"caf\xc3\xa9", b"latin-\xe9"} <= set(os.listdir(root))
    if os.geteuid() == 0:
        assert (os.stat(root + b"/owned").st_uid, os.stat(root + b"/owned").st_gid) == (3_000_000, 4_000_000)
    verbose = subprocess.run([tar, "-tvvf", "-", "--xattrs"], input=data, check=True, capture_output=True).stdout
    assert b"user.note" in verbose


def test_what_gnu_tar_writes_is_read(tmp_path, need):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ("n" * 150)).write_bytes(b"1")
    os.link(tmp_path / "a" / ("n" * 150), tmp_path / "a" / "same")
    (tmp_path / "a" / "to").symlink_to("t" * 150)
    for form in ("gnu", "pax"):
        data = subprocess.run(
            [need("tar"), f"--format={form}", "-c", "-C", tmp_path, "a"], check=True, capture_output=True
        ).stdout
        found = {member.entry.path: member.entry for member, _ in members(io.BytesIO(data))}
        assert {b"/a", b"/a/" + b"n" * 150, b"/a/same", b"/a/to"} == set(found)
        assert found[b"/a/to"].target == b"t" * 150
        assert {found[b"/a/same"].hardlink, found[b"/a/" + b"n" * 150].hardlink} & {b"/a/same", b"/a/" + b"n" * 150}


def test_content_may_come_from_a_range_of_a_file_or_a_stream(tmp_path):
    source = tmp_path / "blob"
    source.write_bytes(b"x" * 100 + b"y" * 3_000_000)
    one, _ = written(
        [(Entry(path=b"/f", kind=Kind.FILE, size=3_000_000), FileRange(path=source, offset=100, length=3_000_000))]
    )
    two, _ = written([(Entry(path=b"/f", kind=Kind.FILE, size=3_000_000), io.BytesIO(b"y" * 3_000_000))])
    three, _ = written([(Entry(path=b"/f", kind=Kind.FILE, size=3_000_000), b"y" * 3_000_000)])
    assert one == two == three


def test_the_bytes_of_a_layer_are_fixed():
    """A change of this digest changes every image that was ever made: it is a decision, not an accident."""
    _, result = written(
        [
            (Entry(path=b"/", kind=Kind.DIR, mode=0o755), None),
            (
                Entry(path=b"/a", kind=Kind.FILE, mode=0o4755, uid=3_000_000, gid=1, mtime=1_700_000_000_500_000_000, size=3),
                b"abc",
            ),
            (Entry(path=b"/caf\xc3\xa9", kind=Kind.SYMLINK, target=b"\xff" * 120, mode=0o777), None),
            (Entry(path=b"/dev", kind=Kind.CHAR, rdev=(1, 3), mtime=-1), None),
            (Entry(path=b"/fifo", kind=Kind.FIFO, xattrs=((b"user.b", b"2"), (b"user.a", b"1"))), None),
            (Entry(path=b"/" + b"l" * 130, kind=Kind.FILE, size=3, hardlink=b"/a"), None),
        ]
    )
    assert result.diff_id == "sha256:b86c68cb8bbc24c3838bbfddb894d84665622e21dd1a8857f77f394c58ca4c6b"


def test_offsets_lead_to_the_content():
    out = io.BytesIO()
    writer = TarWriter(out)
    first = writer.add(Entry(path=b"/" + b"a" * 200, kind=Kind.FILE, size=5), b"first")
    second = writer.add(Entry(path=b"/b", kind=Kind.FILE, size=6), b"second")
    writer.close()
    assert (out.getvalue()[first : first + 5], out.getvalue()[second : second + 6]) == (b"first", b"second")


@pytest.mark.parametrize("content", [b"short", b"much too long", io.BytesIO(b"much too long"), io.BytesIO(b"s"), None])
def test_content_of_another_length_is_an_error(content):
    with pytest.raises(SconifyError, match="changed while it was read"):
        written([(Entry(path=b"/f", kind=Kind.FILE, size=8), content)])


def test_a_file_range_past_the_end_is_an_error(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    with pytest.raises(SconifyError, match="changed while it was read"):
        written([(Entry(path=b"/f", kind=Kind.FILE, size=8), FileRange(path=tmp_path / "f", length=8))])


@pytest.mark.parametrize(
    "path", [b"relative", b"/a//b", b"/a/../b", b"/.", b"/a/", b"/a\0", b"/" + b"n" * 256, b"/x/.wh.y", b"/.wh..wh..opq"]
)
def test_a_path_that_a_reader_would_misunderstand_is_refused(path):
    with pytest.raises(UsageError):
        written([(Entry(path=path, kind=Kind.DIR), None)])


def test_order_duplicates_and_missing_hard_link_targets_are_the_callers_mistakes():
    file, other = Entry(path=b"/b", kind=Kind.FILE), Entry(path=b"/a", kind=Kind.FILE)
    for bad in (
        [(file, b""), (other, b"")],
        [(file, b""), (file, b"")],
        [(Entry(path=b"/l", kind=Kind.FILE, hardlink=b"/b"), None)],
    ):
        with pytest.raises(ValueError, match=r"order|target"):
            write_tar(bad, io.BytesIO())
