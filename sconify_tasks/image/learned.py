"""Content ids that readers of an image learned, kept by diff id: what lies in a layer that was read before is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, Protocol, TypeVar

from sconify_tasks.image.model import Sha256

Place = TypeVar("Place", int, bytes)


class LayerMemory(Protocol):
    """What earlier runs found in layers, by diff id, as `index_form` writes it: `index`, `contents`, `paths`."""

    def recall(self, diff_id: Sha256, what: str) -> bytes | None:
        """Return what was kept, unchanged, or None."""

    def keep(self, diff_id: Sha256, what: str, data: bytes) -> None:
        """Keep it, in place of what was kept before."""


class LearnedContents(Generic[Place]):
    """Content ids (32 bytes) by layer number and place in the layer. Safe for threads; without a memory nothing is learned."""

    def __init__(
        self,
        memory: LayerMemory | None,
        diff_ids: Sequence[Sha256],
        what: str,
        *,
        encode: Callable[[dict[Place, bytes]], bytes],
        decode: Callable[[bytes], dict[Place, bytes]],
    ) -> None:
        self._memory, self._diff_ids, self._what = memory, diff_ids, what
        self._encode: Callable[[dict[Place, bytes]], bytes] = encode
        self._decode: Callable[[bytes], dict[Place, bytes]] = decode
        self._known: dict[int, dict[Place, bytes]] = {}
        self._learned: set[int] = set()
        self._lock = Lock()

    def get(self, layer: int, place: Place) -> bytes | None:
        """What is known of the content there."""
        with self._lock:
            return self._of(layer).get(place)

    def learn(self, layer: int, place: Place, content_id: bytes) -> None:
        """Take it from who has read all of the content; what is known already stays."""
        with self._lock:
            if self._memory is not None and self._of(layer).setdefault(place, content_id) == content_id:
                self._learned.add(layer)

    def close(self) -> None:
        """Keep what was learned, and forget it here."""
        with self._lock:
            for layer in sorted(self._learned):
                assert self._memory is not None
                self._memory.keep(self._diff_ids[layer], self._what, self._encode(self._known[layer]))
            self._known, self._learned = {}, set()

    def _of(self, layer: int) -> dict[Place, bytes]:
        known = self._known.get(layer)
        if known is None:
            kept = self._memory.recall(self._diff_ids[layer], self._what) if self._memory and layer >= 0 else None
            known = self._known[layer] = self._decode(kept) if kept else {}
        return known
