"""What was found good in layers of ours, and against what: neither such a layer nor an unchanged member is checked again.

A layer is named by its blob's digest, which the store verifies; under that name and the key's lies what it holds, member by
member: the digest of the member's very bytes in the tar, headers and padding included, and one of everything that the check
asked of it. Another entry of the manifest, another protected content of a size that the member has, another key, another
byte, and the member is checked again. A check that fails leaves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from blake3 import blake3

from sconify_cache.digest import Digest
from sconify_cache.keys import Action
from sconify_cache.record import Record
from sconify_cache.store import MissingBlobError
from sconify_tasks.world import World

_VERSION = 2
_ASKED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A member of a layer that was found good.

    `size` is that of a file's content; -1 for what has none of its own, hard links too. `length` is that of its bytes in the
    tar and `digest` their BLAKE3, empty where the member is always checked; `asked` is a keyed digest of what was asked of it.
    """

    path: bytes
    size: int
    length: int
    digest: bytes
    asked: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChecks:
    """Records of checks. `asks` gives, in bytes that nothing else has, all that the check of a path and size depends on."""

    world: World
    key_id: str
    asks: Callable[[bytes, int], bytes]

    def asked(self, path: bytes, size: int) -> bytes:
        """A digest of what is asked of a member now. Keyed: among what is asked are digests of protected contents."""
        return blake3(self.asks(path, size), key=self.world.keys.component_key()).digest(_ASKED)

    def passed(self, layer: Digest) -> tuple[Digest, Sequence[Held]] | None:
        """The blob of what the layer holds, and that, if all of it was found good when the same was asked; else None."""
        found = self.world.actions.lookup(self._check(layer).key)
        if found is None or "members" not in found.outputs:
            return None
        members = self.listed(found.outputs["members"])
        same = all(held.asked == self.asked(held.path, held.size) for held in members)
        return (found.outputs["members"], members) if members and same else None

    def listed(self, blob: Digest | None) -> Sequence[Held]:
        """What a blob of `keep` lists; nothing where it is gone, or made under another key or by another version."""
        if blob is None:
            return ()
        with suppress(MissingBlobError):
            document = json.loads(self.world.store.get(blob))
            if document["made"] == [_VERSION, self.key_id]:
                return [
                    Held(path=path.encode("latin-1"), size=size, length=length, digest=_bytes(digest), asked=_bytes(asked))
                    for path, size, length, digest, asked in document["members"]
                ]
        return ()

    def keep(self, layer: Digest, members: Sequence[Held]) -> Digest:
        """Note that all of the layer was found good; return the blob of what it holds."""
        rows = [[held.path.decode("latin-1"), held.size, held.length, held.digest.hex(), held.asked.hex()] for held in members]
        document = {"made": [_VERSION, self.key_id], "members": rows}
        blob = self.world.store.put(json.dumps(document, separators=(",", ":")).encode(), private=True)
        self.world.actions.record(Record.of(self._check(layer), outputs={"members": blob}, secret=True))
        return blob

    def _check(self, layer: Digest) -> Action:
        return Action(step="layer-check", version=_VERSION, inputs={"layer": layer, "key": self.key_id})


_bytes = bytes.fromhex
