"""What was found good in layers of ours, and against what: neither such a layer nor an unchanged member is checked again.

A layer is named by its blob's digest, which the store verifies; under that name and the key's lies what it holds, member by
member: the digest of the member's very bytes in the tar, headers and padding included, and one of everything that the check
asked of it. Another entry of the manifest, another protected content of a size that the member has, another key, another
byte, and the member is checked again. A check that fails leaves nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from blake3 import blake3
from msgspec import Struct

from sconify_cache.digest import Digest
from sconify_cache.keys import Action
from sconify_cache.record import Record
from sconify_cache.store import MissingBlobError
from sconify_tasks.world import World

_VERSION = 2
_ASKED = 16
_ROW = struct.Struct(f"<qQ32s{_ASKED}sH")
NEVER = bytes(32)
"""Stands for the digest of a member that is always checked."""


class Held(Struct, frozen=True, kw_only=True):
    """A member of a layer that was found good.

    `size` is that of a file's content; -1 for what has none of its own, hard links too. `length` is that of its bytes in the
    tar and `digest` their BLAKE3, or NEVER where the member is always checked; `asked` is a keyed digest of what was asked
    of it.
    """

    path: bytes
    size: int
    length: int
    digest: bytes
    asked: bytes


class LayerChecks(Struct, frozen=True, kw_only=True):
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
            data = self.world.store.get(blob)
            if data.startswith(self._head):
                return list(_held(data, len(self._head)))
        return ()

    def keep(self, layer: Digest, members: Sequence[Held]) -> Digest:
        """Note that all of the layer was found good; return the blob of what it holds."""
        rows = (_ROW.pack(held.size, held.length, held.digest, held.asked, len(held.path)) + held.path for held in members)
        blob = self.world.store.put(self._head + b"".join(rows), private=True)
        self.world.actions.record(Record.of(self._check(layer), outputs={"members": blob}, secret=True))
        return blob

    @property
    def _head(self) -> bytes:
        return f"{_VERSION} {self.key_id}\n".encode()

    def _check(self, layer: Digest) -> Action:
        return Action(step="layer-check", version=_VERSION, inputs={"layer": layer, "key": self.key_id})


def _held(data: bytes, at: int) -> Iterator[Held]:
    while at < len(data):
        size, length, digest, asked, named = _ROW.unpack_from(data, at)
        at += _ROW.size + named
        yield Held(path=data[at - named : at], size=size, length=length, digest=digest, asked=asked)
