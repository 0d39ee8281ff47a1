"""What a run came to, in a line or two: steps, bytes, layers, time, and the chain of steps that decided how long it took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from sconify_tasks.events import Event, LayerDelivered, PlanMade, RunFinished, StepFailed, StepFinished, StepStarted

Place = tuple[str, str]
"""Image and step."""
_UNITS = ("B", "kB", "MB", "GB", "TB")
_THOUSAND = 1000
_LONGEST = 8
_LAST = "deliver"
"""The step that others' images wait for."""


class Ran(Struct, frozen=True, kw_only=True):
    """A step that ran: when it began and ended, in seconds of one clock."""

    begun: float
    ended: float


@dataclass(slots=True, kw_only=True)
class Summary:
    """A subscriber that adds up. `lines` is empty for a run that ran nothing."""

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    steps: int = 0
    cut_off: int = 0
    failed: int = 0
    ran: dict[Place, Ran] = field(default_factory=dict)
    needs: dict[Place, tuple[Place, ...]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    layers: Counter[bool] = field(default_factory=Counter)
    _begun: dict[Place, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Add the event; say the summary after the last one."""
        if isinstance(event, PlanMade):
            self.steps += event.steps
            for step, needed in event.needs.items():
                gates = () if needed else tuple((image, _LAST) for image in event.after)
                self.needs[event.image, step] = (*((event.image, name) for name in needed), *gates)
        elif isinstance(event, StepStarted):
            self._begun.setdefault((event.image, event.step), self.clock())
        elif isinstance(event, StepFinished):
            self._finished(event)
        elif isinstance(event, StepFailed):
            self.failed += 1
        elif isinstance(event, LayerDelivered):
            self.layers[event.reused] += 1
        elif isinstance(event, RunFinished):
            for line in self.lines(event.seconds):
                self.say(line)

    def lines(self, seconds: float) -> tuple[str, ...]:
        """The summary of a run that took so long."""
        if not self.ran:
            return ()
        cached = self.steps - len(self.needs) + self.cut_off
        left = max(0, len(self.needs) - len(self.ran) - self.cut_off - self.failed)
        parts = [f"{_number(len(self.ran), 'step')} ran, {cached} cached"]
        parts += [f"{number} {what}" for what, number in (("failed", self.failed), ("not run", left)) if number]
        parts += [
            f"{_amount(what, number)} {what.partition(' ')[2]}".rstrip()
            for what, number in sorted(self.counts.items())
            if number
        ]
        if total := self.layers.total():
            parts.append(f"{self.layers[True]} of {_number(total, 'layer')} reused")
        took, path = critical_path(self.ran, self.needs)
        parts.append(f"{seconds:.1f} s")
        several = len({image for image, _ in path}) > 1 or len({image for image, _ in self.ran}) > 1
        names = [f"{image}:{step}" if several and image else step for image, step in path]
        if len(names) > _LONGEST:
            names = [*names[: _LONGEST // 2], "…", *names[-_LONGEST // 2 :]]
        return (", ".join(parts), f"critical path {took:.1f} s: {' > '.join(names)}")

    def _finished(self, event: StepFinished) -> None:
        place = event.image, event.step
        if event.cached:
            self.cut_off += 1
            return
        begun = self._begun.get(place, self.clock())
        self.ran[place] = Ran(begun=begun, ended=self.clock())
        self.counts.update(event.counts)


def critical_path(ran: Mapping[Place, Ran], needs: Mapping[Place, tuple[Place, ...]]) -> tuple[float, tuple[Place, ...]]:
    """The longest chain of steps by the time they took, along the edges between steps that ran; and its seconds.

    A step that was cut off hands its own edges on: it took no time, and what it waited for was waited for.
    """
    longest: dict[Place, tuple[float, Place | None]] = {}

    def upstream(place: Place) -> set[Place]:
        found: set[Place] = set()
        waiting = list(needs.get(place, ()))
        seen: set[Place] = set()
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            if one in ran:
                found.add(one)
            else:
                waiting += needs.get(one, ())
        return found

    # By the time they began: a step begins after what it needs has ended.
    for place in sorted(ran, key=lambda one: (ran[one].begun, ran[one].ended, one)):
        before = max(((longest[one][0], one) for one in upstream(place) if one in longest), default=(0.0, None))
        longest[place] = (before[0] + ran[place].ended - ran[place].begun, before[1])
    last: Place | None = max(longest, key=lambda one: (longest[one][0], one), default=None)
    took = longest[last][0] if last is not None else 0.0
    chain: list[Place] = []
    while last is not None:
        chain.append(last)
        last = longest[last][1]
    return took, tuple(reversed(chain))


def size(number: float) -> str:
    """Bytes for people: `12.3 MB`, in powers of a thousand."""
    for unit in _UNITS:
        if number < _THOUSAND or unit == _UNITS[-1]:
            return f"{number:.0f} {unit}" if unit == _UNITS[0] else f"{number:.1f} {unit}"
        number /= _THOUSAND
    raise AssertionError


def _amount(what: str, number: int) -> str:
    """Counts are named `bytes encrypted`, `files encrypted`: bytes are shown with their unit."""
    noun = what.partition(" ")[0]
    if noun == "bytes":
        return size(number)
    return _number(number, noun.removesuffix("s"))


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
