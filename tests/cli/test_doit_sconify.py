"""`doit sconify`: in any folder with a sconify.yaml, whatever else lies there."""

from __future__ import annotations

import json
import re

import pytest
from build.small_image import Place, write
from cli.commands import run

PROJECT = """\
version: 1
project: shop
defaults:
  base: scratch
  binary: /bin/prog
  allow-debug-mode: true
  disable-pie-check: true
images:
  api:
    from: dir:../native
    to: oci:out-api:1
    dir: [/app]
  api-admin:
    from: dir:../native
    to: oci:out-admin:1
    dir: /app/sub
  web:
    from: dir:../native
    to: oci:out-web:1
    dir: [/app]
    env: [MODE=web]
"""
LINE = re.compile(r"(?P<image>[a-z-]+) ns-[0-9a-f]{16}/out-[a-z]+-1")


@pytest.fixture
def project(native, place):
    (place.folder / "sconify.yaml").write_text(PROJECT)
    return place


def built(project: Place) -> set[str]:
    return {path.parent.name for path in project.folder.glob("out-*/index.json")}


def names(stdout: str) -> list[str]:
    found = [LINE.fullmatch(line) for line in stdout.splitlines()]
    assert all(found), stdout
    return [match["image"] for match in found if match]


def test_all_images_are_made_and_their_sessions_printed_in_the_files_order(project):
    ended = run(project, ["doit", "sconify"])
    assert ended.code == 0, ended.stderr
    assert names(ended.stdout) == ["api", "api-admin", "web"]
    assert built(project) == {"out-api", "out-admin", "out-web"}
    for name in ("api", "api-admin", "web"):
        assert (project.resources / name / "session.yml").is_file()
    again = run(project, ["doit", "sconify"])
    assert (again.code, again.stdout, again.stderr) == (0, ended.stdout, "")


def test_nothing_is_left_in_the_users_folder_but_what_was_asked_for(project):
    assert run(project, ["doit", "sconify"]).code == 0
    assert {path.name for path in project.folder.iterdir()} == {
        *("sconify.yaml", "build-resources", "home", "out-api", "out-admin", "out-web", "tmp")
    }


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [(["web"], {"out-web"}), (["api*"], {"out-api", "out-admin"}), (["web", "api"], {"out-web", "out-api"})],
)
def test_patterns_choose(project, patterns, expected):
    ended = run(project, ["doit", "sconify", *patterns])
    assert ended.code == 0
    assert built(project) == expected
    assert len(names(ended.stdout)) == len(expected)


@pytest.mark.parametrize(
    "words",
    [["web", "--explain", "-n2"], ["web", "-n", "2", "--events", "e.jsonl"], ["--continue", "web", "-v"], ["--", "web"]],
)
def test_options_may_stand_behind_the_names(project, words):
    ended = run(project, ["doit", "sconify", *words])
    assert ended.code == 0, ended.stderr
    assert built(project) == {"out-web"}
    assert ("web: inspect run:" in ended.stderr) == ("--explain" in words)
    assert (project.folder / "e.jsonl").exists() == ("--events" in words)
    explained = run(project, ["doit", "explain", "web", "--json"])
    assert [image["image"] for image in json.loads(explained.stdout)["images"]] == ["web"]


@pytest.mark.parametrize(
    "images",
    [
        "  a: {to: 'oci:x/out:app'}\n  b: {to: 'oci:y/out:app', heap: 2G}\n",
        "  a: {to: 'oci:out:v1.0'}\n  b: {to: 'oci:out:v1_0'}\n",
        "  a: {to: 'oci:out-a:1', namespace: n, name: same}\n  b: {to: 'oci:out-b:1', namespace: n, name: same}\n",
    ],
    ids=["folders", "tags", "names"],
)
def test_two_images_can_not_have_one_session(project, images):
    head = PROJECT.partition("images:")[0] + "  from: dir:../native\nimages:\n"
    (project.folder / "sconify.yaml").write_text(head + images)
    ended = run(project, ["doit", "sconify"])
    assert (ended.code, ended.stdout, len(ended.errors)) == (2, "", 1)
    assert "a and b have one session, " in ended.errors[0]
    assert built(project) == set()


def test_help_is_said_whatever_else(project):
    ended = run(project, ["doit", "sconify", "web", "--help"])
    assert (ended.code, ended.stderr) == (0, "")
    assert "--explain" in ended.stdout


def test_of_many_images_an_error_names_some(project):
    more = "".join(f"  image-{number}: {{from: 'dir:../native', to: 'oci:out-{number}:1'}}\n" for number in range(200))
    (project.folder / "sconify.yaml").write_text(PROJECT + more)
    ended = run(project, ["doit", "sconify", "nosuch"])
    assert ended.code == 2
    assert ended.errors == ["Error: no image nosuch in sconify.yaml (there are 203: api, api-admin, web, …)"]


def test_an_unknown_name_gets_a_suggestion(project):
    ended = run(project, ["doit", "sconify", "wep"])
    assert (ended.code, ended.stdout) == (2, "")
    assert len(ended.errors) == 1
    assert "wep" in ended.errors[0]
    assert "web" in ended.errors[0]
    assert built(project) == set()


@pytest.mark.parametrize(
    "dodo",
    ["raise RuntimeError('broken')\n", "this is no Python\n", "def task_sconify():\n    return {'actions': ['false']}\n"],
)
def test_a_dodo_py_beside_it_is_not_looked_at(project, dodo):
    (project.folder / "dodo.py").write_text(dodo)
    ended = run(project, ["doit", "sconify", "web"])
    assert ended.code == 0, ended.stderr
    assert names(ended.stdout) == ["web"]
    assert not (project.folder / ".doit.db").exists()


def test_modules_of_the_user_do_not_stand_in_the_way(project):
    for name in ("cache", "dodo", "steps", "build", "docker"):
        (project.folder / name).mkdir()
        (project.folder / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    assert run(project, ["doit", "sconify", "web"]).code == 0


def test_the_file_is_found_from_a_folder_below_and_its_paths_are_seen_from_where_it_lies(project):
    below = project.folder / "src" / "deep"
    below.mkdir(parents=True)
    ended = run(project, ["doit", "sconify", "web"], folder=below)
    assert ended.code == 0, ended.stderr
    assert built(project) == {"out-web"}
    assert list(below.iterdir()) == []
    assert run(project, ["doit", "sconify", "web"]).stderr == ""


def test_one_and_many_threads_give_the_same_images(project):
    def digests() -> dict[str, str]:
        return {
            name: json.loads((project.folder / name / "index.json").read_text())["manifests"][0]["digest"]
            for name in built(project)
        }

    import shutil

    assert run(project, ["doit", "sconify", "-n", "1"]).code == 0
    one = digests()
    assert len(one) == 3
    shutil.rmtree(project.cache)
    assert run(project, ["doit", "sconify", "-n", "8"]).code == 0
    assert digests() == one


def breaks_one(project: Place, *, line: str) -> None:
    text = (project.folder / "sconify.yaml").read_text()
    (project.folder / "sconify.yaml").write_text(text.replace("    dir: /app/sub\n", line))


@pytest.mark.parametrize(
    ("line", "code"),
    [("    dir: /app/nothing\n", 2), ("    dir: /app\n    base: dir:/nowhere\n", 3)],
    ids=["step fails", "base missing"],
)
def test_continue_makes_the_others_and_fails_all_the_same(project, line, code):
    breaks_one(project, line=line)
    for _ in range(2):
        ended = run(project, ["doit", "sconify", "--continue"])
        assert ended.code == code, ended.stderr
        assert names(ended.stdout) == ["api", "web"], "the others' sessions are printed, made now or before"
        assert built(project) == {"out-api", "out-web"}
        assert len(ended.errors) == 1, ended.stderr
        assert "api-admin" in ended.errors[0]


def test_continue_goes_on_where_a_native_image_is_missing(project):
    text = (project.folder / "sconify.yaml").read_text()
    (project.folder / "sconify.yaml").write_text(text.replace("dir:../native", "dir:../missing", 1))
    ended = run(project, ["doit", "sconify", "--continue"])
    assert ended.code == 3, ended.stderr
    assert built(project) == {"out-admin", "out-web"}
    assert len(ended.errors) == 1
    assert "api" in ended.errors[0]
    stopped = run(project, ["doit", "sconify"])
    assert stopped.code == 3
    assert len(stopped.errors) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\nproject: shop\nimages: [", ["sconify.yaml:"]),
        (PROJECT.replace("version: 1", "version: 2"), ["version"]),
        (PROJECT.replace("    env: ", "    evn: "), ["sconify.yaml:", "evn", "env"]),
        (PROJECT.replace("allow-debug-mode: true", "allow-debug-mode: perhaps"), ["allow-debug-mode"]),
        (PROJECT.replace("    dir: /app/sub", "    dir: relative"), ["dir"]),
        (PROJECT.replace("    dir: /app/sub", "    state: /x"), ["state"]),
        (PROJECT.replace("project: shop", "project: ../shop"), ["project"]),
        (PROJECT.replace("  web:", "  we=b:"), ["we=b"]),
        (PROJECT.replace("  web:", "  api:"), ["api"]),
        ("!!python/object/apply:os.system [true]", ["sconify.yaml"]),
        ("a: &a [*a]", ["sconify.yaml"]),
        ("\x00", ["sconify.yaml"]),
        ("", ["version"]),
        (PROJECT.replace("    to: oci:out-web:1", "    to: oci:out-api:1"), ["out-api"]),
        (PROJECT.replace("    to: oci:out-web:1", "    to: oci:./x/../out-api:1"), ["api and web are both written to"]),
        (PROJECT.replace("oci:out-web:1", "docker:app").replace("oci:out-api:1", "app:latest"), ["api and web are both"]),
        (
            PROJECT.replace("oci:out-web:1", "oci-archive:a.tar:1").replace("oci:out-api:1", "oci-archive:./a.tar:2"),
            ["api and web are both"],
        ),
        (
            PROJECT.replace("oci:out-web:1", "docker-archive:a.tar").replace("oci:out-api:1", "docker-archive:a.tar:app"),
            ["api and web are both"],
        ),
        (PROJECT.replace("    dir: /app/sub", "    volume: a:/b"), ["volume", "not built"]),
    ],
    ids=range(19),
)
def test_a_project_file_that_can_not_be(project, text, words):
    (project.folder / "sconify.yaml").write_text(text)
    ended = run(project, ["doit", "sconify"])
    assert (ended.code, ended.stdout) == (2, ""), ended.stderr
    assert len(ended.errors) == 1, ended.stderr
    for word in words:
        assert word in ended.errors[0]
    assert built(project) == set()


def test_a_folder_without_a_project_file(place):
    ended = run(place, ["doit", "sconify"])
    assert (ended.code, ended.stdout) == (2, "")
    assert len(ended.errors) == 1
    assert "sconify.yaml" in ended.errors[0]


@pytest.mark.parametrize(
    "words",
    [
        ["-n", "-1"],
        ["-f", "/nowhere/sconify.yaml"],
        ["-n", "x"],
        ["--none"],
        ["web", "--none"],
        ["web", "--file"],
        ["-x", "web"],
    ],
    ids=" ".join,
)
def test_arguments_that_can_not_be(project, words):
    ended = run(project, ["doit", "sconify", *words])
    assert (ended.code, ended.stdout) == (2, "")
    assert len(ended.errors) == 1


def test_details_name_what_changed_and_hold_no_secret(project, native):
    run(project, ["doit", "sconify", "web"])
    write(native / "app" / "secret", b"changed")
    ended = run(project, ["doit", "sconify", "-v", "web"])
    assert ended.code == 0
    assert "web: encrypt (inputs.salts changed; inputs.secret changed)" in ended.stderr
    assert "marker-of-the-native-environment" not in ended.stderr


def test_a_python_m_doit_is_the_same(project):
    from cli.commands import BIN

    assert (BIN / "python").exists()
    ended = run(project, ["python", "-m", "doit", "sconify", "web"])
    assert ended.code == 0, ended.stderr
    assert names(ended.stdout) == ["web"]
