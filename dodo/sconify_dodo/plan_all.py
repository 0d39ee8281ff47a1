"""What is stale of many images, also where one is made from another: that one is looked at when the other is delivered."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sconify_tasks.build import Build, Miss
from sconify_tasks.errors import SconifyError
from sconify_tasks.events import StepFailed, Stream, Warned

if TYPE_CHECKING:
    from sconify_tasks.world import World

_IMAGES_A_WORKER = 2
"""A worker costs a fork and sources opened once more."""

Stale = dict[str, tuple[Build, tuple[Miss, ...]]]
Upstream = Mapping[str, tuple[str, ...]]


def plan_all(builds: Mapping[str, Build], upstream: Upstream, events: Stream, *, keep_going: bool) -> tuple[Stale, int]:
    """Return what is stale, by image; and the exit code of the first image whose plan fails.

    Builds come in an order in which none is before one that it is made from. Where a plan fails the others go on if they
    may, but for those that are made from that image.
    """
    stale: Stale = {}
    failed: dict[str, int] = {}
    for name, build in builds.items():
        missing = next((each for each in upstream.get(name, ()) if each in failed), None)
        if missing is not None:
            _leave_out(name, missing, events)
            failed[name] = failed[missing]
            continue
        try:
            misses = _plan(build, waits_for(name, upstream, stale))
        except SconifyError as error:
            if not keep_going:
                raise
            events.emit(StepFailed(image=name, step="plan", message=str(error)))
            failed[name] = error.exit_code
        else:
            if misses:
                stale[name] = (build, misses)
    return stale, next(iter(failed.values()), 0)


def waits_for(name: str, upstream: Upstream, stale: Stale) -> tuple[str, ...]:
    """The images that this one is made from and that may be delivered anew."""
    return tuple(each for each in upstream.get(name, ()) if each in stale and _delivers(stale[each][1]))


def say_left_out(stale: Stale, upstream: Upstream, events: Stream) -> None:
    """After a run: name the images that were not made because what they are made from was not."""
    for name in stale:
        missing = next((each for each in waits_for(name, upstream, stale) if "deliver" not in stale[each][0].settled), None)
        if missing is not None:
            _leave_out(name, missing, events)


def _plan(build: Build, waits: tuple[str, ...]) -> tuple[Miss, ...]:
    if not waits:
        return build.plan()
    build.forget()
    return tuple(Miss(step=step, why=(f"waits for the image {', '.join(waits)}",)) for step in build.steps)


def _delivers(misses: tuple[Miss, ...]) -> bool:
    return any(miss.step.name == "deliver" for miss in misses)


def _leave_out(name: str, missing: str, events: Stream) -> None:
    events.emit(Warned(image=name, message=f"left out: it is made from {missing}, which was not made"))


def workers_for(world: World, stale: Stale, waits: Mapping[str, Sequence[str]], *, jobs: int) -> int:
    """How many worker processes these images are worth; 0 where threads do better or must do.

    An image made from another waits for it, and both look at one engine; a token has one session at a time; a program that
    signs may ask its user something.
    """
    count = min(jobs, len(stale) // _IMAGES_A_WORKER)
    if count < 2 or any(waits.values()) or threading.active_count() > 1:  # noqa: PLR2004
        return 0
    return count if all(signer.in_memory for signer in world.signers.values()) else 0
