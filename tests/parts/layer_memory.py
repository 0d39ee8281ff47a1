"""A memory of layers for tests of those who use one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Memory:
    """A `LayerMemory` in a dictionary."""

    kept: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def recall(self, diff_id, what):
        return self.kept.get((diff_id, what))

    def keep(self, diff_id, what, data):
        self.kept[diff_id, what] = data
