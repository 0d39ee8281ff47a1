"""Every member of every layer, shadowed and repeated ones included: for the search for plaintext in a finished image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

from msgspec import Struct

from sconify_tasks.image.entry import Entry
from sconify_tasks.image.model import BuiltImage, Layer, Sha256
from sconify_tasks.image.source import SourceImage
from sconify_tasks.image.tar_read import Member, members


class LayerMember(Struct, frozen=True, kw_only=True):
    """One member of one layer. `content` is None for what is no file; it is valid until the next member is taken."""

    layer: Sha256
    entry: Entry
    content: BinaryIO | None


def search_layers(layers: Iterable[Layer]) -> Iterator[LayerMember]:
    """Yield what the given layer tars hold, as they hold it: no merging, no deletion, nothing hidden by a later member."""
    for layer in layers:
        with layer.path.open("rb") as file:
            for member, content in members(cast("BinaryIO", file)):
                if isinstance(member, Member):
                    yield LayerMember(layer=layer.diff_id, entry=member.entry, content=content)


def search_built(built: BuiltImage) -> Iterator[LayerMember]:
    """Yield what our own layers of a finished image hold."""
    return search_layers(built.layers)


def search_base(base: SourceImage) -> Iterator[LayerMember]:
    """Yield what the base's layers hold, each of them. Costs an export where the base lies in an engine."""
    with base.layer_files() as layers:
        yield from search_layers(layers)
