"""The finished image as the last steps see it: our layers in the store, and the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sconify_cache.digest import Digest
from sconify_cache.keys import JSON
from sconify_tasks.errors import VerificationError
from sconify_tasks.graph import LAYERS
from sconify_tasks.image.model import BuiltImage, Sha256
from sconify_tasks.layers import layer_in_store
from sconify_tasks.step import Context


def assembled(context: Context) -> BuiltImage:
    """Put the image together from the inputs that `graph.py` gives every step that handles it."""
    layers = (layer_in_store(context.world.store, blob, facts) for blob, facts in _layers(context))
    base = context.fact("base_layers")
    assert isinstance(base, list)
    return BuiltImage(
        base_diff_ids=tuple(Sha256(str(digest)) for digest in base),
        layers=tuple(layers),
        config=context.world.store.get(context.blob("config")),
    )


def not_as_asked(message: str) -> VerificationError:
    """What the last check says, of whatever kind, when it finds the image to be something else."""
    return VerificationError(
        f"the finished image is not what was asked for: {message}", hint="this is a defect: please report it"
    )


def layer_blobs(context: Context) -> tuple[Digest, ...]:
    """The blobs of the image's own layers, in their order."""
    return tuple(blob for blob, _ in _layers(context))


def _layers(context: Context) -> Iterator[tuple[Digest, Mapping[str, JSON]]]:
    for name in LAYERS:
        blob, facts = context.inputs[f"{name}_blob"], context.fact(f"{name}_layer")
        if isinstance(blob, Digest) and isinstance(facts, Mapping):
            yield blob, facts
