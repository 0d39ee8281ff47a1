"""Layer tars made to hurt the reader."""

from __future__ import annotations

import gzip
import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.image import tar_read
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import find, read_layer
from sconify_tasks.image.streams import Forward, drain, uncompressed
from sconify_tasks.image.tar_read import Whiteout, members
from sconify_tasks.image.tar_write import write_tar


def tar_of(*infos):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for name, options in infos:
            info = tarfile.TarInfo(name)
            data = options.pop("data", b"")
            info.size = len(data)
            for key, value in options.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read_all(data):
    return [(member, content.read() if content else None) for member, content in members(io.BytesIO(data))]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "a/..", "..", "a/../b"])
def test_dots_that_climb_are_refused(name):
    with pytest.raises(UsageError, match="outside the image"):
        read_all(tar_of((name, {})))


@pytest.mark.parametrize("name", ["/etc/x", "./etc/x", "etc//x", "//etc/x", "etc/./x"])
def test_spellings_of_one_path_are_one_path(name):
    assert [member.entry.path for member, _ in read_all(tar_of((name, {})))] == [b"/etc/x"]


def test_a_hard_link_out_of_the_root_is_refused():
    with pytest.raises(UsageError, match="outside the image"):
        read_all(tar_of(("l", {"type": tarfile.LNKTYPE, "linkname": "../../etc/shadow"})))


def test_a_symlink_is_kept_verbatim_wherever_it_leads():
    ((member, _),) = read_all(tar_of(("l", {"type": tarfile.SYMTYPE, "linkname": "../../../etc/shadow"})))
    assert member.entry.target == b"../../../etc/shadow"


@pytest.mark.parametrize("first", [{"type": tarfile.SYMTYPE, "linkname": "/etc"}, {}])
def test_nothing_is_put_through_a_symlink_or_a_file(first):
    with pytest.raises(UsageError, match="directory and something else"):
        read_layer(io.BytesIO(tar_of(("d", first), ("d/passwd", {}))), layer=0)


@pytest.mark.parametrize("target", ["missing", "l", "dir"])
def test_a_hard_link_needs_an_earlier_file(target):
    data = tar_of(("dir", {"type": tarfile.DIRTYPE}), ("l", {"type": tarfile.LNKTYPE, "linkname": target}), ("missing", {}))
    with pytest.raises(UsageError, match="hard link to"):
        read_layer(io.BytesIO(data), layer=0)


def test_of_a_repeated_path_the_last_counts():
    data = tar_of(
        ("a", {"type": tarfile.DIRTYPE}),
        ("a/under", {"data": b"1"}),
        ("b", {"data": b"old"}),
        ("b", {"data": b"new!"}),
        ("a", {"data": b"22"}),
    )
    root = read_layer(io.BytesIO(data), layer=0).root
    assert find(root, b"/b").member.entry.size == 4
    assert find(root, b"/a").member.entry.kind is Kind.FILE
    assert find(root, b"/a/under") is None
    assert len(read_all(data)) == 5


@pytest.mark.parametrize("cut", [300, 512 + 100, 1024 + 512 + 10])
def test_an_archive_that_breaks_off_is_damaged(cut):
    data = tar_of(("a", {"data": b"x" * 600}), ("b", {"data": b"y" * 600}))
    with pytest.raises(UsageError, match="damaged layer archive"):
        read_all(data[:cut])


def test_a_damaged_header_in_the_middle_is_no_end():
    data = bytearray(tar_of(("a", {"data": b"x"}), ("b", {"data": b"y"}), ("c", {"data": b"z"})))
    data[1024 + 10] ^= 0xFF
    with pytest.raises(UsageError, match="damaged layer archive"):
        read_all(bytes(data))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_of_absurd_size_are_not_read(kind):
    info = tarfile.TarInfo("h")
    info.type, info.size = kind, 8 << 30
    with pytest.raises(UsageError, match="header of 8589934592 bytes"):
        read_all(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


def test_a_chain_of_long_name_headers_is_an_error_not_a_crash():
    info = tarfile.TarInfo("h")
    info.type, info.size = b"L", 4
    with pytest.raises(UsageError):
        read_all((info.tobuf(tarfile.GNU_FORMAT) + b"abc\0".ljust(512, b"\0")) * 3000)


def test_quadratic_pax_headers_take_no_time():
    info = tarfile.TarInfo("h")
    info.type, info.size = b"x", 1 << 20
    with pytest.raises(UsageError):
        read_all(info.tobuf(tarfile.GNU_FORMAT) + b"1" * (1 << 20) + bytes(4096))


@pytest.mark.parametrize(
    "headers", [{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}, {"GNU.sparse.size": "99999999999"}]
)
def test_sparse_files_are_refused(headers):
    with pytest.raises(UsageError, match="sparse"):
        read_all(tar_of(("s", {"pax_headers": headers, "data": b"1\n0\n0\n"})))


def test_old_sparse_files_are_refused():
    info = tarfile.TarInfo("s")
    info.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(UsageError, match="sparse"):
        read_all(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def test_unknown_types_and_owners_out_of_range_are_refused():
    for options in (
        {"type": b"Z"},
        {"pax_headers": {"uid": str(1 << 40)}},
        {"pax_headers": {"mtime": "9" * 30}},
        {"pax_headers": {"mtime": "nan"}},
    ):
        with pytest.raises(UsageError):
            read_all(tar_of(("x", options)))


def test_global_headers_are_ignored_as_the_engines_do():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "/evil", "uid": "7"}) as archive:
        archive.addfile(tarfile.TarInfo("good"))
    ((member, _),) = read_all(out.getvalue())
    assert (member.entry.path, member.entry.uid) == (b"/good", 0)


def test_whiteouts_are_told_from_files():
    data = tar_of(("d/.wh.gone", {}), ("d/.wh..wh..opq", {}), ("d/.wh..wh.plnk", {}), ("d/kept", {}))
    found = [member for member, _ in read_all(data)]
    assert found[:2] == [Whiteout(path=b"/d/gone"), Whiteout(path=b"/d", opaque=True)]
    assert [member.entry.path for member in found[2:]] == [b"/d/kept"]


@pytest.mark.parametrize("name", ["d/.wh.", "d/.wh..", "d/.wh..."])
def test_a_whiteout_of_nothing_or_of_a_parent_is_refused(name):
    with pytest.raises(UsageError):
        read_all(tar_of((name, {})))


def test_a_compressed_layer_has_a_bound():
    with pytest.raises(UsageError, match="larger than 1000 bytes"):
        drain(Forward(uncompressed(io.BytesIO(gzip.compress(bytes(1 << 20), mtime=0))), limit=1000))


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"x" * 1000, mtime=0)[:-9],
        b"\x28\xb5\x2f\xfd" + b"garbage" * 10,
        gzip.compress(b"x", mtime=0)[:8] + b"\xff" * 50,
    ],
)
def test_damaged_compression_is_an_error_for_people(data):
    with pytest.raises(UsageError, match="damaged compressed layer"):
        drain(Forward(uncompressed(io.BytesIO(data))))


def test_a_stream_that_cannot_seek_reads_the_same():
    class OneWay(io.RawIOBase):
        def __init__(self, data):
            self.data = io.BytesIO(data)

        def readable(self):
            return True

        def read(self, size=-1):
            return self.data.read(min(size, 700))

    data = tar_of(("a", {"data": b"x" * 5000}), ("b", {"data": b"yy"}))
    skipped = [member.entry.path for member, _ in members(OneWay(data))]
    assert skipped == [b"/a", b"/b"]
    assert [content.read() for _, content in members(OneWay(data))] == [b"x" * 5000, b"yy"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_flipped_byte_is_read_or_refused_but_never_a_crash(data):
    out = io.BytesIO()
    write_tar([(Entry(path=b"/" + b"d" * 120, kind=Kind.FILE, size=3, uid=1 << 30, xattrs=((b"user.a", b"b"),)), b"abc")], out)
    raw = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 1536))] = data.draw(st.integers(0, 255))
    with suppress(UsageError):
        read_layer(io.BytesIO(bytes(raw)), layer=0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_noise_is_no_archive(noise):
    with suppress(UsageError):
        read_all(noise)


def read_header(reader, data):
    try:
        found = reader.frombuf(data, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return type(error)
    fields = ("name", "mode", "uid", "gid", "size", "mtime", "type", "linkname", "devmajor", "devminor")
    return [getattr(found, field) for field in fields]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_header_means_to_us_what_it_means_to_tarfile(data):
    kind = data.draw(st.sampled_from([b"0", b"1", b"2", b"5", b"\0", b"3", b"7", b"L", b"x"]))
    info = tarfile.TarInfo(data.draw(st.sampled_from(["a", "a/b/", "\udcff", "p" * 90 + "/" + "n" * 60, ""])))
    info.type, info.linkname = kind, data.draw(st.sampled_from(["", "target", "/x/\udcfe"]))
    info.size, info.uid = data.draw(st.sampled_from([0, 7, 1 << 33, 1 << 40])), data.draw(st.sampled_from([0, 1000, 1 << 24]))
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT if info.size >= 1 << 33 or info.uid > 1 << 21 else tarfile.USTAR_FORMAT))
    for at in data.draw(st.lists(st.integers(0, 511), max_size=3)):
        header[at] = data.draw(st.sampled_from([0, 0x20, 0x2D, 0x30, 0x31, 0x37, 0x38, 0x5F, 0x80, 0xFF]))
    if data.draw(st.booleans()):  # most damage would otherwise end at the checksum
        header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 256)
    assert read_header(tar_read._Info, bytes(header)) == read_header(tarfile.TarInfo, bytes(header))
