"""Reads a layer of ours for the last check; members whose bytes were found good before are passed over.

Which bytes of a tar are a member depends on nothing before them: where one begins as before, and has the same bytes, a
reader finds in it what was found before. So it is neither parsed nor decrypted, but hashed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from blake3 import blake3

from sconify_tasks.image.model import Layer
from sconify_tasks.image.search import LayerMember
from sconify_tasks.image.tar_read import Member, members
from sconify_tasks.layer_checks import NEVER, Held, LayerChecks

_LARGEST = 4 << 20
"""Larger members are always checked: that costs hardly more than hashing them twice, as the first check would have to."""


@dataclass(slots=True, kw_only=True)
class LayerReading:
    """One layer being read. `before` is what another layer was found to hold, best its predecessor.

    When `changed` has ended without an error of who walks it, `held` is all that the layer holds.
    """

    layer: Layer
    checks: LayerChecks
    before: Sequence[Held]
    held: list[Held] = field(default_factory=list)
    passed_over: int = 0
    _places: dict[bytes, int] = field(default_factory=dict)
    _next: int = 0
    _start: int = 0
    _file: int = -1
    _read: tuple[bytes, int] | None = None

    def changed(self) -> Iterator[LayerMember]:
        """Every member that must be checked, as the layer holds it."""
        self._places = {held.path: place for place, held in enumerate(self.before)}
        with self.layer.path.open("rb") as file:
            self._file = file.fileno()
            for member, content in members(cast("BinaryIO", file), known=self._after_known):
                if isinstance(member, Member):
                    path = member.entry.path
                    self._read = path, -1 if content is None else member.entry.size
                    yield LayerMember(layer=self.layer.diff_id, entry=member.entry, content=content)

    def _after_known(self, offset: int) -> int:
        """The member that was read ends here: return where the next one begins that must be read."""
        if self._read is not None:
            self._end(offset)
        while self._next < len(self.before):
            held = self.before[self._next]
            if held.digest == NEVER or self.checks.asked(held.path, held.size) != held.asked:
                break
            found = os.pread(self._file, held.length, offset)
            if len(found) != held.length or blake3(found).digest() != held.digest:
                break
            self.held.append(held)
            self.passed_over += 1
            self._next += 1
            offset += held.length
        self._start = offset
        return offset

    def _end(self, offset: int) -> None:
        """Note the member that was read, and go on comparing behind the one that had its path."""
        assert self._read is not None
        (path, size), self._read = self._read, None
        length = offset - self._start
        found = os.pread(self._file, length, self._start) if length <= _LARGEST else b""
        digest = blake3(found).digest() if len(found) == length else NEVER
        self.held.append(Held(path=path, size=size, length=length, digest=digest, asked=self.checks.asked(path, size)))
        self._next = max(self._next, self._places.get(path, -1) + 1)
