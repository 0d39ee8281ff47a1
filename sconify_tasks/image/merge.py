"""The merged view of a stack of layers: what a container would see, as the overlay file system gives it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.index import LayerIndex, Node, descend, find
from sconify_tasks.image.paths import outermost, split
from sconify_tasks.image.source import not_there


class Found(Struct, frozen=True, kw_only=True):
    """An entry of the view, and where its content lies: layer number and offset in that layer's uncompressed tar."""

    entry: Entry
    layer: int
    offset: int


class MergedView:
    """Layers from the lowest to the highest, whiteouts applied. Takes over the nodes of the indexes it is given."""

    def __init__(self, layers: Iterable[LayerIndex]) -> None:
        self._root = Node(layer=-1, children={})
        for layer in layers:
            _apply(self._root, layer)

    def lstat(self, path: bytes) -> Found | None:
        """One path; no symlink is followed."""
        node = find(self._root, path)
        return _found(path, node) if node else None

    def listdir(self, path: bytes) -> list[bytes]:
        """Names in a directory, sorted; empty for what is none."""
        node = find(self._root, path)
        return sorted(node.children or ()) if node else []

    def walk(self, roots: Iterable[bytes]) -> Iterator[Found]:
        """Each root and everything below it once, parents first. Files that share an inode name the first one yielded."""
        inodes: dict[tuple[int, int], bytes] = {}
        for root in outermost(list(roots)):
            if find(self._root, root) is None:
                raise not_there(root, "the image")
            for path, node in descend(self._root, root):
                found = _found(path, node)
                if found.entry.kind is Kind.FILE:
                    first = inodes.setdefault((found.layer, found.offset), path)
                    if first != path:
                        found = replace(found, entry=replace(found.entry, hardlink=first))
                yield found


def _found(path: bytes, node: Node) -> Found:
    return Found(entry=node.entry(path), layer=node.layer, offset=node.member.offset if node.member else 0)


def _apply(lower: Node, layer: LayerIndex) -> None:
    for path in layer.opaque:
        directory = find(lower, path)
        if directory is not None and directory.children is not None:
            directory.children = {}
    for path in layer.whiteouts:
        parent, name = split(path)
        directory = find(lower, parent)
        if directory is not None and directory.children is not None:
            directory.children.pop(name, None)
    _overlay(lower, layer.root)


def _overlay(lower: Node, upper: Node) -> None:
    """Directories unite, everything else is replaced: also a symlink to a directory, by a directory of the same name."""
    pending = [(lower, upper)]
    while pending:
        below, above = pending.pop()
        if above.member is not None:
            below.member, below.layer = above.member, above.layer
        assert below.children is not None
        for name, node in (above.children or {}).items():
            covered = below.children.get(name)
            if covered is None or covered.children is None or node.children is None:
                below.children[name] = node
            else:
                pending.append((covered, node))
