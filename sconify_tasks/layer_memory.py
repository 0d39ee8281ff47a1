"""What is remembered of layers of native and base images, by diff id, in the store: a layer below a changed one is not read.

The file names and keyed content ids are of images that may be secret: the blobs are private and never shared. A diff id
enters the key only keyed, so that other keys' content ids are not found.
"""

from __future__ import annotations

from msgspec import Struct

from sconify_cache.actions import ActionCache
from sconify_cache.keys import Action, content_id
from sconify_cache.record import Record
from sconify_cache.store import MissingBlobError, WritableStore
from sconify_tasks.image.index_form import VERSION
from sconify_tasks.image.model import Sha256


class StoredLayerMemory(Struct, frozen=True, kw_only=True):
    """A `LayerMemory` (image/layered.py). `key` is that of the content ids."""

    store: WritableStore
    actions: ActionCache
    key: bytes

    def recall(self, diff_id: Sha256, what: str) -> bytes | None:
        """What `keep` was given, as long as the store has it."""
        record = self.actions.lookup(self._action(diff_id, what).key)
        if record is None:
            return None
        try:
            return self.store.get(record.outputs[what])
        except MissingBlobError:
            return None

    def keep(self, diff_id: Sha256, what: str, data: bytes) -> None:
        """Note it, in place of what was noted before."""
        outputs = {what: self.store.put(data, private=True)}
        self.actions.record(Record.of(self._action(diff_id, what), outputs=outputs, secret=True))

    def _action(self, diff_id: Sha256, what: str) -> Action:
        layer = "keyed:" + content_id(self.key, diff_id.encode())
        return Action(step=f"layer-{what}", version=VERSION, inputs={"layer": layer})
