"""Files that options name are inputs by what they hold, not by what they are called."""

from __future__ import annotations

import pytest

from sconify_dodo.front import Order, make_build
from sconify_tasks.environment import read_environment
from sconify_tasks.errors import UsageError
from sconify_tasks.events import Stream
from sconify_tasks.graph import STEPS as ALL
from sconify_tasks.options import Options
from sconify_tasks.step import Outputs
from sconify_tasks.world import open_world

STEP_OF = {"cas-root": "cas", "template": "policy"}


def key(tmp_path, option: str):
    environment = read_environment({"HOME": str(tmp_path), "SCONIFY_ROOT_KEY": "5a" * 32})
    world = open_world(environment, project="p", events=Stream())
    file = str(tmp_path / "file")
    given = {"from": "dir:/nowhere", "to": "x", "binary": "/b", "cas": "localhost:1", option: file}
    if option == "cas-root":
        given[option] = (file,)
    build = make_build(world, Order(name="", options=Options.of(given), resources=tmp_path / "resources"))
    (step,) = (step for step in ALL if step.name == STEP_OF[option])
    for name in step.inputs.values():
        upstream, _, output = name.partition(".")
        if upstream != "external":
            known = build.settled.get(upstream, Outputs())
            build.settled[upstream] = Outputs(facts={**known.facts, output: "sample"})
    return build.action(step).key


@pytest.mark.parametrize("option", sorted(STEP_OF))
def test_another_content_under_the_same_name_gives_a_new_key(tmp_path, option):
    (tmp_path / "file").write_text("one")
    before = key(tmp_path, option)
    assert key(tmp_path, option) == before
    (tmp_path / "file").write_text("two")
    assert key(tmp_path, option) != before


@pytest.mark.parametrize("option", sorted(STEP_OF))
def test_a_file_that_is_not_there_is_named(tmp_path, option):
    with pytest.raises(UsageError, match=f"--{option}=.*file"):
        key(tmp_path, option)
