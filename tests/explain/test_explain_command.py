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


def test_details_of_cached_steps_are_told_to_those_who_ask(native, project):
    (project.folder / "sconify.yaml").write_text(PROJECT + "    plain: [/plain]\n    host-path: [/usr/share]\n")
    assert run(project, ["doit", "sconify", "-v"]).code == 0
    told = ["not protected: /plain, by --plain", "not protected: /usr/share, by --host-path"]
    ended = run(project, ["doit", "explain", "-v"])
    assert "api: files cached:\n" + "".join(f"    {line}\n" for line in told) in ended.stdout
    assert "not protected" not in run(project, ["doit", "explain"]).stdout
    (image,) = json.loads(run(project, ["doit", "explain", "-v", "--json"]).stdout)["images"]
    assert {step["step"]: step["details"] for step in image["steps"] if step["details"]} == {"files": told}
    for words in (["doit", "sconify", "-v"], ["doit", "sconify", "-v", "-n", "1"]):
        again = run(project, words).stderr.splitlines()
        assert [line for line in again if "not protected" in line] == [f"api: {line}" for line in told]
    write(native / "app" / "secret", b"changed")
    assert run(project, ["doit", "sconify", "-v"]).stderr.count("not protected: /plain") == 1


def test_a_build_that_explains_itself_also_says_what_was_cached(native, project):
    write(native / "app" / "secret", b"changed")
    ended = run(project, ["doit", "sconify", "--explain"])
    assert "api: cas cached\n" in ended.stderr
    assert "api: encrypt run:\n    /app/secret: content\n" in ended.stderr
    assert "api: copy cut-off:\n" in ended.stderr
    assert "api: deliver cached\n" in run(project, ["doit", "sconify", "--explain"]).stderr
