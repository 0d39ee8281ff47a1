"""Steps that run at once stay within a budget of memory; one that is larger than all of it runs alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from build.small_image import Recorder, convert, make_native, order_for, world_of, write

from sconify_dodo.front import build_all
from sconify_dodo.worker import Room
from sconify_tasks.available_memory import available_memory
from sconify_tasks.environment import read_environment
from sconify_tasks.errors import UsageError
from sconify_tasks.graph import STEPS
from sconify_tasks.memory_budget import MemoryBudget
from sconify_tasks.working_set import HEAVY

TIMEOUT = 60
MIB = 1 << 20


class Counting(MemoryBudget):
    """Keeps what ran together: the sizes, each time that one was admitted."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.asked: list[int] = []
        self.together: list[tuple[int, int]] = []

    def admitted(self, size: int):
        self.asked.append(size)
        return super().admitted(size)

    def _fits(self, size: int) -> bool:
        fits = super()._fits(size)
        if fits:
            self.together.append((self.running + 1, self.used + size))
        return fits


def use(budget: MemoryBudget, sizes: list[int]) -> None:
    """Each in a thread of its own; all must come to their end."""
    threads = [threading.Thread(target=_enter, args=(budget, size), daemon=True) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert not any(thread.is_alive() for thread in threads)


def _enter(budget: MemoryBudget, size: int) -> None:
    with budget.admitted(size):
        threading.Event().wait(0.002)


def test_what_is_admitted_at_once_stays_within_the_limit():
    budget = Counting(100)
    use(budget, [40, 30, 60, 10, 99, 100, 1] * 8)
    assert 0 < budget.most <= 100
    assert (budget.used, budget.running) == (0, 0)


def test_what_is_larger_than_the_limit_runs_alone_and_everything_ends():
    budget = Counting(100)
    use(budget, [250, 40, 60, 101, 250, 0] * 6)
    assert max((used for running, used in budget.together if running > 1), default=0) <= 100
    assert [running for running, used in budget.together if used > 100] == [1] * 18


def test_a_large_one_is_not_passed_by_small_ones_for_ever():
    budget = MemoryBudget(100)
    order = []
    with budget.admitted(60):
        large = threading.Thread(target=lambda: _note(budget, 90, order), daemon=True)
        large.start()
        _until(lambda: len(budget._waiting) == 1)
        small = threading.Thread(target=lambda: _note(budget, 10, order), daemon=True)
        small.start()
        _until(lambda: len(budget._waiting) == 2)
        assert order == []
    large.join(TIMEOUT)
    small.join(TIMEOUT)
    assert order[0] == 90


def _note(budget: MemoryBudget, size: int, order: list[int]) -> None:
    with budget.admitted(size):
        order.append(size)


def _until(true) -> None:
    pause = threading.Event()
    for _ in range(TIMEOUT * 100):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError


def test_a_step_that_fails_gives_its_memory_back():
    budget = MemoryBudget(100)
    with pytest.raises(ValueError, match="no"), budget.admitted(100):
        raise ValueError("no")
    use(budget, [100])
    assert budget.used == 0


def test_what_is_set_aside_is_not_handed_out_and_is_at_most_half():
    budget = Counting(100)
    with budget.set_aside(shares=2, size=20) as share:
        assert share == 20
        use(budget, [40, 30, 10, 61] * 4)
        assert max((used for running, used in budget.together if running > 1), default=0) <= 60
    assert (budget.limit, budget.used) == (100, 0)
    with budget.set_aside(shares=3, size=20) as share:
        assert share == 0
        use(budget, [100])
        assert budget.most == 100
    with pytest.raises(KeyError), budget.set_aside(shares=1, size=50):
        raise KeyError("no")
    assert budget.limit == 100


def test_a_worker_asks_only_for_more_than_it_has():
    said = []

    class Asked:
        def send(self, message) -> None:
            said.append(type(message).__name__)

        def receive(self) -> None:
            said.append("answer")

    room = Room(Asked(), 10)
    with room.admitted(10):
        assert said == []
    with room.admitted(11):
        assert said == ["Admit", "answer"]
    assert said == ["Admit", "answer", "Release"]


def test_a_build_with_less_than_a_step_needs_runs_heavy_steps_one_by_one(native, place):
    for number in range(50):
        write(native / "app" / f"file-{number}", b"x")
    with world_of(place, Recorder()) as world:
        budget = world.memory = Counting(1)
        assert build_all(world, [order_for(native, place)], jobs=4, keep_going=False, debug=False).code == 0
    assert len(budget.asked) == sum(bool(step.whole) for step in STEPS)
    assert {running for running, _ in budget.together} == {1}
    assert budget.most >= HEAVY


def test_heavy_steps_of_different_workers_take_turns(program, place, tmp_path):
    natives = [make_native(tmp_path / f"image-{number}", program) for number in range(4)]
    for native in natives:
        for folder in ("app", "plain"):  # else the images would have steps in common, which wait for each other anyway
            write(native / folder / "own", native.name.encode())
    words = [sys.executable, "-m", "build.worker_turns", place.folder, *natives]
    ended = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    said = json.loads(ended.stdout)
    runs = sorted(said["heavy"])
    assert len({pid for _, _, pid, _, _ in runs} - {said["run"]}) == 2
    heavy = [step.name for step in STEPS if step.whole]
    assert sorted(run[3:] for run in runs) == sorted([native.name, step] for native in natives for step in heavy)
    for (_, end, *_), (begin, *_) in pairwise(runs):
        assert end <= begin


def test_a_larger_tree_is_stated_to_need_more(native, place):
    def most() -> int:
        with world_of(place, Recorder()) as world:
            budget = world.memory = Counting(1 << 40)
            assert build_all(world, [order_for(native, place)], jobs=1, keep_going=False, debug=False).code == 0
        return max(budget.asked)

    small = most()
    for number in range(1000):
        write(native / "app" / f"file-{number}", b"x")
    assert most() > small + MIB


def test_the_variable_sets_the_budget_and_a_bad_one_is_refused(native, place):
    with world_of(place, Recorder(), SCONIFY_MEMORY="64M") as world:
        assert world.memory.limit == 64 * MIB
    assert convert(native, place, variables={"SCONIFY_MEMORY": "1"}, jobs=4).code == 0
    with pytest.raises(UsageError, match="SCONIFY_MEMORY=much is no size"):
        read_environment({"SCONIFY_MEMORY": "much"})


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        write(root / name, text.encode())
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 8000 kB\nMemAvailable:    4000 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MEMINFO, 4000 * 1024),
        ({**MEMINFO, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max"}, 4000 * 1024),
        (
            {
                **MEMINFO,
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000000",
                "sys/fs/cgroup/a/memory.current": "400000",
            },
            600_000,
        ),
        (
            {
                **MEMINFO,
                "proc/self/cgroup": "0::/of/the/host\n",
                "sys/fs/cgroup/memory.max": "500",
                "sys/fs/cgroup/memory.current": "900",
            },
            0,
        ),
        (
            {
                **MEMINFO,
                "proc/self/cgroup": "5:cpu,memory:/docker/x\n1:name=systemd:/\n",
                "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "3000",
                "sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": "1000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000",
            },
            2000,
        ),
    ],
    ids=["nothing known", "no group", "no limit", "a group above", "a container", "version 1"],
)
def test_the_default_knows_the_machine_and_its_control_groups(tmp_path, files, expected):
    assert available_memory(machine(tmp_path, files)) == expected
