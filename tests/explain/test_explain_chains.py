"""What is said of images made from images of the same project, before a run and while it builds."""

from __future__ import annotations

import re
import shutil

import pytest
from build.small_image import Place, write
from cli.commands import run

from sconify_dodo.plan import takes_an_image
from sconify_tasks.graph import STEPS

PROJECT = """\
version: 1
project: shop
defaults: {base: scratch, allow-debug-mode: true, disable-pie-check: true, binary: /bin/prog}
images:
  side: {from: "oci-archive:out.tar", to: "oci:out-side:1", binary: /bin/other, command: /bin/other, dir: [/plain]}
  api: {from: "dir:../native", to: "oci-archive:out.tar:1", dir: [/app], plain: [/plain], plain-file: [/bin/other]}
"""
SAID = re.compile(r"^(\w+): (\w+) (run|cached|cut-off|waits)(?: for ([\w, ]+))?:?$", re.MULTILINE)
LOOKS_AT_IMAGES = {step.name for step in STEPS if takes_an_image(step)}
ALL = {step.name for step in STEPS}


@pytest.fixture
def project(native, place: Place) -> Place:
    shutil.copy2(native / "bin" / "prog", native / "bin" / "other")
    (place.folder / "sconify.yaml").write_text(PROJECT)
    return place


def built(project: Place) -> Place:
    ended = run(project, ["doit", "sconify"])
    assert ended.code == 0, ended.stderr
    return project


def said(project: Place, image: str, *words: str) -> dict[str, tuple[str, str]]:
    """State of every step of an image, and what it waits for; each step once."""
    ended = run(project, ["doit", *words])
    assert ended.code == 0, ended.stderr
    found = [match for match in SAID.findall(ended.stdout + ended.stderr) if match[0] == image]
    states = {step: (state, waits) for _, step, state, waits in found}
    assert len(found) == len(states)
    return states


def test_an_image_waits_for_the_one_that_it_is_made_from_and_the_build_says_what_became_of_every_step(native, project):
    built(project)
    write(native / "plain" / "readme", b"changed")
    before = said(project, "side", "explain")
    assert before.keys() == ALL
    assert {step for step, (state, waits) in before.items() if "the image api" in waits} == LOOKS_AT_IMAGES
    assert {state for step, (state, _) in before.items() if step != "cas"} == {"waits"}
    assert before["cas"] == ("cached", "")

    then = said(project, "side", "sconify", "--explain")
    assert then.keys() == ALL
    assert {"inspect", "encrypt", "deliver"} <= {step for step, (state, _) in then.items() if state == "run"}
    assert then["sign"] == ("cut-off", "")
    assert {state for state, _ in said(project, "side", "explain").values()} == {"cached"}


def test_where_the_other_image_is_not_delivered_anew_nothing_waits_and_nothing_runs(project):
    built(project)
    (project.resources / "api" / "session.yml").unlink()
    assert said(project, "api", "explain")["resources"][0] == "run"
    assert {state for state, _ in said(project, "side", "explain").values()} == {"cached"}
    assert {state for state, _ in said(project, "side", "sconify", "--explain").values()} == {"cached"}


def test_what_is_made_from_an_image_that_is_not_there_yet_is_explained_too(project):
    assert {state for state, _ in said(project, "side", "explain").values()} == {"run"}
    ended = run(project, ["doit", "explain", "side"])
    assert "side: inspect run:\n    never run for this image\n" in ended.stdout


def test_a_changed_option_is_named_although_the_image_is_yet_to_be_looked_at(native, project):
    built(project)
    write(native / "plain" / "readme", b"changed")
    (project.folder / "sconify.yaml").write_text(PROJECT.replace("dir: [/plain]}", "dir: [/plain], heap: 2G, name: other}"))
    (project.folder / "out.tar").unlink()
    ended = run(project, ["doit", "explain", "side"])
    assert ended.code == 0, ended.stderr
    assert "side: sign run:\n    --heap: 1G -> 2G\n" in ended.stdout
    assert "    --name: none -> other\n" in ended.stdout
