"""What was read of a layer is remembered by its diff id: a layer below a changed one is not opened again."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from parts.images import built, file, folder, layer, symlink
from parts.layer_memory import Memory

from sconify_tasks.errors import VerificationError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import descend, read_layer
from sconify_tasks.image.index_form import decode_contents, decode_index, encode_contents, encode_index
from sconify_tasks.image.oci import OciSource
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink_oci import OciSink


def image_of(tmp_path: Path, tag: str, *layers) -> None:
    OciSink(tmp_path / "oci").deliver(built(*layers), ScratchSource(), tag)


def everything(source) -> dict[bytes, tuple[Entry, bytes | None]]:
    with source.walk([b"/"]) as stream:
        return {entry.path: (entry, content.read() if content else None) for entry, content in stream}


@pytest.fixture
def lower(tmp_path):
    return layer(
        tmp_path / "layers",
        folder(b"/app", uid=1000),
        file(b"/app/one", b"one", mode=0o4755, xattrs=((b"security.capability", b"\x01\xff\x00"),)),
        (Entry(path=b"/app/two", kind=Kind.FILE, hardlink=b"/app/one"), None),
        (Entry(path=b"/dev/null", kind=Kind.CHAR, rdev=(1, 3)), None),
        symlink(b"/app/l\xff", b"\xfe"),
        file(b"/implied/deep/file", b"x"),
    )


def test_an_index_comes_back_as_it_was(lower):
    index = read_layer(io.BytesIO(lower.path.read_bytes()), layer=3)
    data = encode_index(index)
    again = decode_index(data, layer=3)
    assert list(descend(again.root, b"/")) == list(descend(index.root, b"/"))
    assert (again.whiteouts, again.opaque) == (index.whiteouts, index.opaque)
    assert encode_index(again) == data


def test_whiteouts_and_opaque_directories_come_back(tmp_path):
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("a/.wh.gone", "b/.wh..wh..opq", "b/new"):
            archive.addfile(tarfile.TarInfo(name))
    out.seek(0)
    index = read_layer(out, layer=1)
    again = decode_index(encode_index(index), layer=1)
    assert (again.whiteouts, again.opaque) == ((b"/a/gone",), (b"/b",))


def test_content_ids_come_back_by_offset():
    contents = {512: b"a" * 32, 1 << 40: b"b" * 32}
    assert decode_contents(encode_contents(contents)) == contents


def test_an_image_with_a_new_top_layer_is_the_same_with_and_without_a_memory(tmp_path, lower):
    memory = Memory()
    image_of(tmp_path, "1", lower, layer(tmp_path / "layers", file(b"/app/three", b"3")))
    first = OciSource(tmp_path / "oci", "1", memory=memory)
    assert everything(first) == everything(OciSource(tmp_path / "oci", "1"))
    assert first.layers_read == 2

    image_of(tmp_path, "2", lower, layer(tmp_path / "layers", file(b"/app/three", b"three"), file(b"/app/one", b"1")))
    second = OciSource(tmp_path / "oci", "2", memory=memory)
    assert second.lstat(b"/app/two").size == 3
    assert second.layers_read == 1
    assert everything(second) == everything(OciSource(tmp_path / "oci", "2"))
    assert second.layers_read == 2  # contents of the lower one were asked for


def test_content_ids_are_learned_and_kept_by_layer(tmp_path, lower):
    memory = Memory()
    image_of(tmp_path, "1", lower)
    with_reader = OciSource(tmp_path / "oci", "1", memory=memory)
    assert with_reader.content_id(b"/app/one") is None
    with_reader.learn(b"/app/one", b"i" * 32)
    with_reader.close()

    image_of(tmp_path, "2", lower, layer(tmp_path / "layers", file(b"/app/three", b"3")))
    again = OciSource(tmp_path / "oci", "2", memory=memory)
    assert again.content_id(b"/app/one") == b"i" * 32
    assert again.content_id(b"/app/two") == b"i" * 32  # the same file by another name
    assert again.content_id(b"/app/three") is None
    assert again.content_id(b"/app") is None
    assert again.layers_read == 1


def test_without_a_memory_nothing_is_learned(tmp_path, lower):
    image_of(tmp_path, "1", lower)
    source = OciSource(tmp_path / "oci", "1")
    source.learn(b"/app/one", b"i" * 32)
    assert source.content_id(b"/app/one") is None


def test_a_layer_whose_index_is_known_is_verified_all_the_same_when_a_file_is_read(tmp_path, lower):
    memory = Memory()
    image_of(tmp_path, "1", lower)
    everything(OciSource(tmp_path / "oci", "1", memory=memory))
    blob = tmp_path / "oci" / "blobs" / "sha256" / lower.diff_id.removeprefix("sha256:")
    data = bytearray(blob.read_bytes())
    data[data.index(b"one\0")] ^= 1
    blob.unlink()
    blob.write_bytes(data)
    with pytest.raises(VerificationError):
        OciSource(tmp_path / "oci", "1", memory=memory).read(b"/app/one", limit=9)
