"""The index of one layer as bytes, and back: what was read of a layer once need not be read of its tar again.

For this machine's own store only, which verifies what it gives back: nothing in these bytes is checked again.
"""

from __future__ import annotations

import json
from struct import Struct
from typing import Any

from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import LayerIndex, Node, descend, names
from sconify_tasks.image.tar_read import Member

VERSION = 1
_CONTENT = Struct("<Q32s")
_PATH = Struct("<H32s")
_KINDS = tuple(Kind)


def encode_index(index: LayerIndex) -> bytes:
    """Write it down; before it is merged, because merging takes its nodes."""
    document = {
        "members": [_row(path, node.member) for path, node in descend(index.root, b"/") if node.member is not None],
        "whiteouts": [_text(path) for path in index.whiteouts],
        "opaque": [_text(path) for path in index.opaque],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def decode_index(data: bytes, *, layer: int) -> LayerIndex:
    """Make the index again, for an image in which the layer has this number."""
    document = json.loads(data)
    root = Node(layer=layer, children={})
    for row in document["members"]:
        _insert(root, _member(row), layer)
    return LayerIndex(
        root=root,
        whiteouts=tuple(map(_raw, document["whiteouts"])),
        opaque=tuple(map(_raw, document["opaque"])),
    )


def encode_contents(contents: dict[int, bytes]) -> bytes:
    """Content ids (32 bytes each) by the offset of the content in the layer's tar."""
    return b"".join(_CONTENT.pack(offset, content) for offset, content in sorted(contents.items()))


def decode_contents(data: bytes) -> dict[int, bytes]:
    """The inverse."""
    return dict(_CONTENT.iter_unpack(data))


def encode_paths(contents: dict[bytes, bytes]) -> bytes:
    """Content ids (32 bytes each) by path, of a layer that is no tar."""
    return b"".join(_PATH.pack(len(path), content) + path for path, content in sorted(contents.items()))


def decode_paths(data: bytes) -> dict[bytes, bytes]:
    """The inverse."""
    found, at = {}, 0
    while at < len(data):
        length, content = _PATH.unpack_from(data, at)
        at += _PATH.size + length
        found[data[at - length : at]] = content
    return found


def _row(path: bytes, member: Member) -> list[Any]:
    entry = member.entry
    numbers = (member.offset, int(entry.kind), entry.mode, entry.uid, entry.gid, entry.mtime, entry.size)
    xattrs = [[_text(name), _text(value)] for name, value in entry.xattrs]
    return [_text(path), *numbers, _text(entry.target), _text(entry.hardlink), entry.rdev, xattrs]


def _member(row: list[Any]) -> Member:
    path, offset, kind, mode, uid, gid, mtime, size, target, hardlink, (major, minor), xattrs = row
    entry = Entry(
        path=_raw(path),
        kind=_KINDS[kind],
        mode=mode,
        uid=uid,
        gid=gid,
        mtime=mtime,
        size=size,
        target=_raw(target),
        hardlink=_raw(hardlink),
        rdev=(major, minor),
        xattrs=tuple((_raw(name), _raw(value)) for name, value in xattrs),
    )
    return Member(entry=entry, offset=offset)


def _insert(root: Node, member: Member, layer: int) -> None:
    """Parents come first; a directory that only its children imply has no row."""
    node = root
    for name in names(member.entry.path):
        assert node.children is not None
        node = node.children.setdefault(name, Node(layer=layer, children={}))
    node.member = member
    if member.entry.kind is not Kind.DIR:
        node.children = None


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _raw(text: str) -> bytes:
    return text.encode("latin-1")
