"""What doit is given to run: tasks of stale images alone, and steps that need nothing of each other at the same time."""

from __future__ import annotations

import threading

import pytest
from build.small_image import Place, Recorder, convert, make_native, options_for, world_of, write

from sconify_dodo import tasks
from sconify_dodo.front import Order, build_all
from sconify_tasks.steps import cas, inspect

PATIENCE = 60


@pytest.fixture
def planned(monkeypatch) -> list[set[str]]:
    """The images that tasks were made for, run by run."""
    found: list[set[str]] = []
    make = tasks.tasks_for

    def tasks_for(stale, **more):
        found.append(set(stale))
        return make(stale, **more)

    monkeypatch.setattr(tasks, "tasks_for", tasks_for)
    return found


def test_tasks_are_made_for_stale_images_only(place: Place, program, tmp_path, planned):
    natives = {name: make_native(tmp_path / name, program) for name in ("one", "two", "three")}

    def build() -> int:
        orders = [
            Order(
                name=name, options=options_for(native, place, to=f"oci:{place.layout}:{name}"), resources=place.resources / name
            )
            for name, native in natives.items()
        ]
        with world_of(place, Recorder()) as world:
            return build_all(world, orders, jobs=1, keep_going=False, debug=True).code

    assert build() == 0
    write(natives["two"] / "app" / "secret", b"changed")
    assert build() == 0
    assert build() == 0
    assert planned == [{"one", "two", "three"}, {"two"}]


def test_two_steps_of_one_image_run_at_the_same_time(native, place: Place, monkeypatch):
    meeting = threading.Barrier(2, timeout=PATIENCE)
    for step in (inspect, cas):

        def run(context, real=step.run):
            meeting.wait()  # broken, and the step with it, where the other one does not run meanwhile
            return real(context)

        monkeypatch.setattr(step, "run", run)
    assert convert(native, place, jobs=2).code == 0
