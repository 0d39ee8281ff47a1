"""`doit explain`: the real command, as text and as JSON; it runs and writes nothing."""

from __future__ import annotations

import json

import pytest
from build.small_image import snapshot, write
from cli.commands import run

PROJECT = """\
version: 1
project: shop
images:
  api:
    from: dir:../native
    to: oci:out-api:1
    base: scratch
    binary: /bin/prog
    dir: [/app]
    allow-debug-mode: true
    disable-pie-check: true
"""


@pytest.fixture
def project(native, place):
    (place.folder / "sconify.yaml").write_text(PROJECT)
    assert run(place, ["doit", "sconify"]).code == 0
    return place


def test_it_names_the_file_and_the_option_and_leaves_everything_as_it_is(native, project):
    write(native / "app" / "secret", b"changed")
    (project.folder / "sconify.yaml").write_text(PROJECT + "    heap: 2G\n")
    before = snapshot(project.folder, native)
    ended = run(project, ["doit", "explain", "api"])
    assert (ended.code, ended.stderr) == (0, "")
    assert "api: sign run:\n    --heap: 1G -> 2G\n    MRENCLAVE: heap: 1073741824 -> 2147483648\n" in ended.stdout
    assert "    /app/secret: content\n" in ended.stdout
    assert "api: encrypt waits for " in ended.stdout
    assert "api: cas cached\n" in ended.stdout
    found = json.loads(run(project, ["doit", "explain", "--json"]).stdout)
    assert (found["v"], [image["image"] for image in found["images"]]) == (1, ["api"])
    steps = {step["step"]: step for step in found["images"][0]["steps"]}
    assert "/app/secret: content" in steps["files"]["reasons"]
    assert steps["encrypt"]["state"] == "waits"
    changed = {path for path, at in snapshot(project.folder, native).items() if at != before.get(path)}
    assert changed <= {str(project.cache / "actions"), str(project.state / "cas")}


def test_a_built_project_is_cached_throughout_and_an_unknown_image_is_a_usage_error(project):
    ended = run(project, ["doit", "explain"])
    assert {line.split()[-1] for line in ended.stdout.splitlines()} == {"cached"}
    ended = run(project, ["doit", "explain", "nothing"])
    assert (ended.code, ended.stdout, len(ended.errors)) == (2, "", 1)


def test_a_build_that_explains_itself_also_says_what_was_cached(native, project):
    write(native / "app" / "secret", b"changed")
    ended = run(project, ["doit", "sconify", "--explain"])
    assert "api: cas cached\n" in ended.stderr
    assert "api: encrypt run:\n    /app/secret: content\n" in ended.stderr
    assert "api: copy cut-off:\n" in ended.stderr
    assert "api: deliver cached\n" in run(project, ["doit", "sconify", "--explain"]).stderr
