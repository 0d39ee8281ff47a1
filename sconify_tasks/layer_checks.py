"""Which layers of ours were verified before, and against what: such a layer is not read again.

A layer is named by its blob's digest, which the store verifies. What it holds is listed under that name, and that it was
found good under a digest of everything that the check asked of exactly these members: another entry of the manifest, another
protected content of a size that the layer has, another key, and the layer is read again. A check that fails leaves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from sconify_cache.digest import Digest
from sconify_cache.keys import Action
from sconify_cache.record import Record
from sconify_cache.store import MissingBlobError
from sconify_tasks.world import World

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A member of a layer. `size` is that of a file's content; -1 for what has none of its own, hard links too."""

    path: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChecks:
    """Records of checks. `asked` gives, in bytes that nothing else has, all that the check of one member depends on."""

    world: World
    key_id: str
    asked: Callable[[Held], bytes]

    def passed(self, layer: Digest) -> tuple[Digest, tuple[Held, ...]] | None:
        """The blob of what the layer holds, and that, if all of it was found good when the same was asked; else None."""
        found = self.world.actions.lookup(_listing(layer).key)
        if found is None or "members" not in found.outputs:
            return None
        with suppress(MissingBlobError):
            rows: list[list[str | int]] = json.loads(self.world.store.get(found.outputs["members"]))
            members = tuple(Held(path=bytes.fromhex(str(path)), size=int(size)) for path, size in rows)
            if self.world.actions.lookup(self._check(layer, members).key) is not None:
                return found.outputs["members"], members
        return None

    def keep(self, layer: Digest, members: Iterable[Held]) -> Digest:
        """Note that all of the layer was read and found good; return the blob of what it holds."""
        held = tuple(members)
        rows = json.dumps([[member.path.hex(), member.size] for member in held], separators=(",", ":"))
        blob = self.world.store.put(rows.encode(), private=True)
        self.world.actions.record(Record.of(_listing(layer), outputs={"members": blob}, secret=True))
        self.world.actions.record(Record.of(self._check(layer, held), outputs={}, secret=True))
        return blob

    def _check(self, layer: Digest, members: Iterable[Held]) -> Action:
        from blake3 import blake3

        # Keyed: among what is asked are digests of protected contents.
        asked = blake3(key=self.world.keys.component_key())
        for member in members:
            answer = self.asked(member)
            asked.update(b"%d %d %d\n" % (len(member.path), member.size, len(answer)) + member.path + answer)
        inputs = {"layer": layer, "asked": "keyed:" + asked.hexdigest(), "key": self.key_id}
        return Action(step="layer-check", version=_VERSION, inputs=inputs)


def _listing(layer: Digest) -> Action:
    return Action(step="layer-members", version=_VERSION, inputs={"layer": layer})
