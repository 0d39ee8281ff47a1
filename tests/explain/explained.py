"""Real builds of the small image, and what was said of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from build.small_image import Place, Recorder, order_for, world_of

from sconify_dodo.front import build_all, make_build
from sconify_tasks.environment import read_environment
from sconify_tasks.events import Event, StepExplained, Stream
from sconify_tasks.explain import Explanation, explain
from sconify_tasks.option_types import Value
from sconify_tasks.world import look_at_world


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a run said of its steps."""

    code: int
    events: tuple[Event, ...]

    @property
    def states(self) -> dict[str, str]:
        return {event.step: event.state for event in self.events if isinstance(event, StepExplained)}

    @property
    def reasons(self) -> dict[str, tuple[str, ...]]:
        return {event.step: event.reasons for event in self.events if isinstance(event, StepExplained)}


def build(native: Path, place: Place, *, variables: Mapping[str, str] | None = None, **given: Value) -> Said:
    """A build with --explain."""
    recorder = Recorder()
    with world_of(place, recorder, **(variables or {})) as world:
        world.explain = True
        code = build_all(world, [order_for(native, place, **given)], jobs=1, keep_going=False, debug=True).code
    return Said(code=code, events=tuple(recorder.events))


def look(native: Path, place: Place, *, variables: Mapping[str, str] | None = None, **given: Value) -> dict[str, Explanation]:
    """What `doit explain` finds."""
    world = look_at_world(read_environment(place.variables(**(variables or {}))), project="tests", events=Stream())
    made = make_build(world, order_for(native, place, **given))
    try:
        return {one.step: one for one in explain(made)}
    finally:
        made.close()
        world.close()
