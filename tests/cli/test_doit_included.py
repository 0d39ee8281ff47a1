"""`doit sconify` in a project of many files: from a part's folder, with variables of the environment."""

from __future__ import annotations

import pytest
from build.small_image import Place
from cli.commands import run

ROOT = """\
version: 1
project: shop
include: services/*/sconify.yaml
defaults: {base: scratch, binary: /bin/prog, allow-debug-mode: true, disable-pie-check: true}
"""
PART = "version: 1\nimages:\n  NAME: {from: 'dir:../../../native', to: 'oci:out:${TAG:-none}', dir: [/app]}\n"


@pytest.fixture
def project(native, place: Place) -> Place:
    (place.folder / "sconify.yaml").write_text(ROOT)
    for name in ("api", "web"):
        part = place.folder / "services" / name / "sconify.yaml"
        part.parent.mkdir(parents=True)
        part.write_text(PART.replace("NAME", name))
    return place


def made(project: Place) -> set[str]:
    return {path.parent.parent.name for path in project.folder.glob("services/*/out/index.json")}


def test_in_a_parts_folder_its_images_are_made_and_the_others_by_name(project):
    api = project.folder / "services" / "api"
    ended = run(project, ["doit", "sconify"], folder=api, env={"TAG": "7"})
    assert ended.code == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["api"]
    assert ended.stdout.rstrip().endswith("/out-7")
    assert made(project) == {"api"}
    assert sorted(path.name for path in api.iterdir()) == ["out", "sconify.yaml"]  # resources lie beside the root
    assert (project.resources / "api" / "session.yml").is_file()
    assert run(project, ["doit", "sconify", "web"], folder=api).code == 0
    assert made(project) == {"api", "web"}


def test_a_part_may_be_named_as_the_file(project):
    ended = run(project, ["doit", "sconify", "-f", "services/web/sconify.yaml"])
    assert ended.code == 0, ended.stderr
    assert made(project) == {"web"}


def test_a_part_that_is_not_included_ends_with_one_line(project):
    stray = project.folder / "stray"
    stray.mkdir()
    (stray / "sconify.yaml").write_text(PART)
    ended = run(project, ["doit", "sconify"], folder=stray)
    assert (ended.code, ended.stdout) == (2, "")
    assert len(ended.errors) == 1
    assert "does not include it" in ended.errors[0]


def test_a_key_of_the_environment_is_never_shown(project):
    (project.folder / "services" / "api" / "sconify.yaml").write_text(PART.replace("oci:out:", "oci:${SCONIFY_ROOT_KEY}"))
    ended = run(project, ["doit", "sconify"])
    assert (ended.code, ended.stdout) == (2, "")
    assert project.variables()["SCONIFY_ROOT_KEY"] not in ended.stderr
