"""The same graph for every other doit command: with `loader = "sconify"`, and from a dodo.py that imports the creator."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from build.small_image import Place, write
from cli.commands import BIN, Ended, run, variables
from cli.test_doit_sconify import PROJECT, built

LOADER = "[GLOBAL]\nloader = sconify\n"
TOML = '[tool.doit]\nloader = "sconify"\n'
DODO = """\
from sconify_dodo.dodo import task_sconify_images
DOIT_CONFIG = {"backend": "sconify", "dep_file": "state.db"}
def task_own():
    return {"actions": ["echo own"], "verbosity": 2}
"""
OWN = "def task_own():\n    return {'actions': ['echo own'], 'verbosity': 2}\n"


@pytest.fixture(params=["pyproject.toml", "loader beside a dodo.py", "dodo.py"])
def project(request, native, place: Place) -> Place:
    (place.folder / "sconify.yaml").write_text(PROJECT)
    if request.param == "dodo.py":
        (place.folder / "dodo.py").write_text(DODO)
    elif request.param == "pyproject.toml":
        (place.folder / "pyproject.toml").write_text(TOML)
    else:
        (place.folder / "doit.cfg").write_text(LOADER)
    if "beside" in request.param:
        (place.folder / "dodo.py").write_text(OWN)
    return place


def doit(place: Place, *words: str) -> Ended:
    return run(place, ["doit", *words])


def statuses(place: Place, image: str) -> set[str]:
    lines = doit(place, "list", "--all", "--status", f"sconify:{image}").stdout.splitlines()
    return {line[0] for line in lines if line.startswith(("R", "U", "I")) and line.count(":") == 2}


def test_every_command_sees_the_graph(project: Place, native):
    names = {line.split()[0] for line in doit(project, "list").stdout.splitlines()}
    own = {"own"} if (project.folder / "dodo.py").exists() else set()
    assert names == {"sconify:api", "sconify:api-admin", "sconify:web", "sconify_images"} | own
    assert not project.cache.exists(), "a list opens nothing"

    ended = doit(project, "run", "-n", "4", "-P", "thread", "sconify:web")
    assert ended.code == 0, ended.stdout + ended.stderr
    assert built(project) == {"out-web"}
    assert statuses(project, "web") == {"U"}
    assert statuses(project, "api") == {"R"}
    assert "up-to-date" in doit(project, "info", "sconify:web:encrypt").stdout

    again = doit(project, "run", "sconify:web")
    assert again.code == 0
    assert "done" not in again.stderr

    write(native / "app" / "secret", b"changed")
    assert statuses(project, "web") == {"R", "U"}
    assert "web: encrypt done" in doit(project, "run", "sconify:web").stderr

    assert doit(project, "forget", "sconify:web").code == 0
    assert statuses(project, "web") == {"R"}
    forgotten = doit(project, "run", "sconify:web")
    assert "done" not in forgotten.stderr, "what the cache has is not made again"
    assert statuses(project, "web") == {"U"}


def test_clean_removes_what_was_made_outside_and_nothing_else(project: Place):
    assert doit(project, "run", "sconify:web", "sconify:api").code == 0
    (project.resources / "web" / "mine").write_text("x")
    dry = doit(project, "clean", "-n", "sconify:web")
    assert "out-web" in dry.stdout
    assert built(project) == {"out-api", "out-web"}
    assert doit(project, "clean", "sconify:web").code == 0
    assert not (project.folder / "out-web").exists()
    assert [path.name for path in (project.resources / "web").iterdir()] == ["mine"]
    assert built(project) == {"out-api"}
    assert (project.resources / "api" / "session.yml").exists()
    ended = doit(project, "run", "sconify:web")
    assert set(re.findall(r"web: (\w+) done", ended.stderr)) == {"deliver", "resources"}


def test_processes_of_doits_own_make_the_images_and_leave_nothing_behind(native, place: Place):
    (place.folder / "doit.cfg").write_text(LOADER)
    (place.folder / "sconify.yaml").write_text(PROJECT)
    leases = place.cache / "store" / "leases"
    assert doit(place, "run", "-n", "2", "sconify:web", "sconify:api").code == 0
    assert list(leases.iterdir()) == []
    assert statuses(place, "web") == statuses(place, "api") == {"U"}
    write(native / "app" / "secret", b"changed")
    (leases / "1-of-a-build-that-was-killed.lease").write_text("0 pid 1\n")
    ended = doit(place, "run", "-n", "2", "sconify:web")
    assert ended.code == 0, ended.stderr
    assert "web: encrypt done" in ended.stderr
    assert list(leases.iterdir()) == []


def test_clean_of_one_tag_leaves_the_layouts_other_images_whole(native, place: Place):
    from sconify_tasks.image.validate import validate

    (place.folder / "doit.cfg").write_text(LOADER)
    (place.folder / "sconify.yaml").write_text(PROJECT.replace("oci:out-web:1", "oci:out-api:web"))
    assert doit(place, "run", "sconify:web", "sconify:api").code == 0
    assert doit(place, "clean", "sconify:web").code == 0
    entries = json.loads((place.folder / "out-api" / "index.json").read_text())["manifests"]
    assert len(entries) == 1
    validate(place.folder / "out-api", "1")


def test_an_image_that_is_no_longer_ours_is_not_cleaned(native, place: Place):
    (place.folder / "doit.cfg").write_text(LOADER)
    (place.folder / "sconify.yaml").write_text(PROJECT)
    assert doit(place, "run", "sconify:web", "sconify:api").code == 0
    shutil.rmtree(place.folder / "out-web")
    shutil.copytree(place.folder / "out-api", place.folder / "out-web")
    assert doit(place, "clean", "sconify:web").code == 0
    assert built(place) == {"out-api", "out-web"}


def test_a_failing_step_says_one_line_and_no_traceback(native, place: Place):
    (place.folder / "doit.cfg").write_text(LOADER)
    (place.folder / "sconify.yaml").write_text(PROJECT.replace("dir: /app/sub", "dir: /nothing"))
    ended = doit(place, "run", "sconify:api-admin")
    assert ended.code != 0
    assert "/nothing" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_project_that_can_not_be_read_is_an_error_of_one_line(place: Place):
    (place.folder / "doit.cfg").write_text(LOADER)
    (place.folder / "sconify.yaml").write_text("version: 7\n")
    ended = doit(place, "list")
    assert ended.code == 3
    assert len(ended.stderr.splitlines()) == 1
    assert "sconify.yaml" in ended.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_script_names_the_images(native, place: Place, need, shell: str, tmp_path):
    (place.folder / "doit.cfg").write_text(LOADER)
    (place.folder / "sconify.yaml").write_text(PROJECT)
    script = doit(place, "tabcompletion", "--shell", shell, "--hardcode-tasks")
    assert script.code == 0
    assert "sconify:web" in script.stdout
    checked = subprocess.run(
        [need(shell), "-n"], input=script.stdout, env=variables(place), text=True, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert BIN.exists()
