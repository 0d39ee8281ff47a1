"""What one layer holds: a tree of its members, and what it deletes from the layers below (image-spec layer.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from sconify_tasks.errors import UsageError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import below, settled_mtime, shown, split
from sconify_tasks.image.tar_read import Member, Whiteout, members


@dataclass(slots=True, kw_only=True)
class Node:
    """One path. `member` is None for a directory that only its children imply; `children` is None for what is no directory.

    Nodes are changed while layers are read and merged, and by nobody afterwards.
    """

    layer: int
    member: Member | None = None
    children: dict[bytes, Node] | None = None

    def entry(self, path: bytes) -> Entry:
        """Metadata at `path`, as a single path: without the hard link that brought it."""
        if self.member is None:
            return Entry(path=path, kind=Kind.DIR, mode=0o755)
        entry = self.member.entry
        mtime = settled_mtime(path, entry.mtime)
        return replace(entry, hardlink=b"", mtime=mtime) if entry.hardlink or entry.mtime != mtime else entry


class LayerIndex(Struct, frozen=True, kw_only=True):
    """The tree of a layer, with the paths it removes (`whiteouts`) or empties (`opaque`) in the layers below it."""

    root: Node
    whiteouts: tuple[bytes, ...]
    opaque: tuple[bytes, ...]


@dataclass(slots=True)
class _Building:
    layer: int
    root: Node
    whiteouts: dict[bytes, None] = field(default_factory=dict)
    opaque: dict[bytes, None] = field(default_factory=dict)


def read_layer(stream: BinaryIO, *, layer: int) -> LayerIndex:
    """Index an uncompressed layer tar; `layer` is its number in the image. Of a path that comes twice, the last counts."""
    building = _Building(layer, Node(layer=layer, children={}))
    for member, _ in members(stream):
        if isinstance(member, Whiteout):
            (building.opaque if member.opaque else building.whiteouts)[member.path] = None
        else:
            _insert(building, member)
    _check_deletions(building)
    return LayerIndex(root=building.root, whiteouts=tuple(building.whiteouts), opaque=tuple(building.opaque))


def find(root: Node, path: bytes) -> Node | None:
    """Return the node at `path`; no symlink is followed."""
    node: Node | None = root
    for name in names(path):
        if node is None or node.children is None:
            return None
        node = node.children.get(name)
    return node


def names(path: bytes) -> list[bytes]:
    """Components of a normalised path; none for `/`."""
    return path[1:].split(b"/") if path != b"/" else []


def descend(root: Node, path: bytes) -> Iterator[tuple[bytes, Node]]:
    """Yield the node at `path` and all below it, parents first, siblings in bytewise order."""
    start = find(root, path)
    pending = [(path, start)] if start else []
    while pending:
        at, node = pending.pop()
        yield at, node
        prefix = at.rstrip(b"/") + b"/"
        pending += [(prefix + name, child) for name, child in sorted((node.children or {}).items(), reverse=True)]


def _insert(building: _Building, member: Member) -> None:
    entry = member.entry
    if entry.hardlink:
        member = _linked(building.root, member)
    is_dir = member.entry.kind is Kind.DIR
    if entry.path == b"/":
        if not is_dir:
            _refuse(entry.path, "is the root and no directory")
        building.root.member = member
        return
    parent, name = split(entry.path)
    siblings = _directory(building, parent)
    before = siblings.get(name)
    if is_dir and before is not None and before.children is not None:
        before.member = member
    else:
        siblings[name] = Node(layer=building.layer, member=member, children={} if is_dir else None)


def _check_deletions(building: _Building) -> None:
    """Refuse a deletion below what this layer makes no directory: readers follow a symlink there, or stop."""
    for path in (*building.opaque, *(split(whiteout)[0] for whiteout in building.whiteouts)):
        node: Node | None = building.root
        for name in names(path):
            node = (node.children or {}).get(name) if node else None
            if node is not None and node.children is None:
                _refuse(path, "is a directory in which something is deleted, and something else, in one layer")


def _directory(building: _Building, path: bytes) -> dict[bytes, Node]:
    children = building.root.children
    assert children is not None
    for name in names(path):
        node = children.setdefault(name, Node(layer=building.layer, children={}))
        if node.children is None:
            # extraction would write through the symlink: the way out of the root that archives are attacked with
            _refuse(path, "is a directory and something else in one layer")
        children = node.children
        assert children is not None
    return children


def _linked(root: Node, member: Member) -> Member:
    """Give a hard link what it shares: everything but the path."""
    link = member.entry
    target = find(root, link.hardlink)
    # What the link replaces is removed first: it may not be its own target, nor hold it.
    if target is None or target.member is None or target.children is not None or below(link.hardlink, link.path):
        _refuse(link.path, f"is a hard link to {shown(link.hardlink)}, which this layer does not have before it")
    assert target is not None
    assert target.member is not None
    shared = target.member.entry
    hardlink = (shared.hardlink or shared.path) if shared.kind is Kind.FILE else b""
    return Member(entry=replace(shared, path=link.path, hardlink=hardlink), offset=target.member.offset)


def _refuse(path: bytes, what: str) -> None:
    msg = f"{shown(path)} {what}"
    raise UsageError(msg, hint="rebuild the image: an engine would refuse or misread this layer")
