"""`doit sconify` that finds nothing to do: no plan is made, and whatever a plan would have noticed is noticed all the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from build.small_image import Place, make_native, snapshot, write
from cli.commands import Ended, variables
from settled.watched import planned, run_watched

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
    to: oci:out:api
    dir: [/app]
    template: template.yml
    session: elsewhere/api.yml
  web:
    from: oci:../layout:web
    to: oci:out:web
    dir: [/app]
    env: ["MODE=${MODE:-web}"]
"""
TEMPLATE = "name: $SESSION\nversion: '0.3'\nservices: [{name: app, mrenclaves: [$MRENCLAVE], command: /bin/prog, environment: {A: b}}]\n"


def run(place: Place, *words: str, folder: Path | None = None, **more: str) -> Ended:
    """`doit sconify`."""
    return run_watched(place, ["doit", "sconify", *words], hook=place.folder / "hook", folder=folder, more=more)


def ran(ended: Ended) -> set[str]:
    """The steps that ran, as `IMAGE: STEP`."""
    return set(re.findall(r"^([a-z]+: [a-z]+) done", ended.stderr, re.MULTILINE))


@dataclass(frozen=True, slots=True)
class Built:
    place: Place
    native: Path


@pytest.fixture(scope="module")
def built(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A project that was built. The tests leave it in any state; the next build puts it right."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "place").mkdir()
    place, native = Place(folder=folder / "place"), make_native(folder / "native", program)
    (place.folder / "sconify.yaml").write_text(PROJECT)
    (place.folder / "template.yml").write_text(TEMPLATE)
    make_layout(native, place)
    first = run(place)
    assert first.code == 0, first.stderr
    return Built(place=place, native=native)


@pytest.fixture
def project(built: Built) -> Place:
    for _ in range(3):
        if not planned(run(built.place)):
            return built.place
    raise AssertionError("it does not settle")


@pytest.fixture
def source(built: Built) -> Path:
    return built.native


def make_layout(native: Path, place: Place) -> None:
    """The native image as an OCI layout, made by the product's own sink."""
    import hashlib

    from sconify_tasks.image.model import BuiltImage, Layer, Sha256
    from sconify_tasks.image.scratch import ScratchSource
    from sconify_tasks.image.sink_oci import OciSink

    tar = place.folder / "layer.tar"
    subprocess.run(["tar", "--owner=0", "--group=0", "-cf", tar, "-C", native, "."], check=True)
    digest = Sha256("sha256:" + hashlib.sha256(tar.read_bytes()).hexdigest())
    config = json.loads(native.with_name("native.json").read_text())
    config["rootfs"] = {"type": "layers", "diff_ids": [digest]}
    layer = Layer(diff_id=digest, size=tar.stat().st_size, path=tar)
    built = BuiltImage(base_diff_ids=(), layers=(layer,), config=json.dumps(config).encode())
    OciSink(native.with_name("layout")).deliver(built, ScratchSource(), "web")


def test_a_second_run_makes_no_plan_opens_no_project_and_writes_nothing(project: Place, source: Path):
    before = snapshot(project.folder, source, source.with_name("layout"))
    ended = run(project)
    assert ended.code == 0
    assert ended.stderr == "imported: \n"
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["api", "web"]
    assert snapshot(project.folder, source, source.with_name("layout")) == before


def test_names_and_patterns_choose_among_what_is_settled(project: Place):
    for words, names in ((("web",), ["web"]), (("w*",), ["web"]), (("web", "api"), ["api", "web"])):
        ended = run(project, *words)
        assert not planned(ended), words
        assert [line.split()[0] for line in ended.stdout.splitlines()] == names
    assert run(project, "web", "unknown").code == 2


def replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def blob_of(place: Place, tag: str, kind: str) -> Path:
    layout = place.folder / "out"
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    (entry,) = [e for e in entries if e["annotations"]["org.opencontainers.image.ref.name"] == tag]
    manifest_path = layout / "blobs" / entry["digest"].replace(":", "/")
    if kind == "manifest":
        return manifest_path
    manifest = json.loads(manifest_path.read_text())
    item = manifest["config"] if kind == "config" else manifest["layers"][2]
    return layout / "blobs" / item["digest"].replace(":", "/")


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])


def forget_session(place: Place, image: str) -> None:
    # Closed, or its log would outlive the database that another test removes.
    with closing(sqlite3.connect(place.state / "cas" / "sessions.sqlite")) as database, database:
        database.execute("DELETE FROM versions WHERE name LIKE ?", (f"%{image}",))


def untag(place: Place, tag: str) -> None:
    index = place.folder / "out" / "index.json"
    document = json.loads(index.read_text())
    document["manifests"] = [e for e in document["manifests"] if e["annotations"]["org.opencontainers.image.ref.name"] != tag]
    index.write_text(json.dumps(document))


def drop(path: Path) -> None:
    path.unlink()


Change = Callable[[Place, Path], object]
DELIVER, RESOURCES, UPLOAD = "deliver", "resources", "upload"
# What is done to the world, and the steps that a run then runs: None where a plan is made that may find nothing.
CHANGES: dict[str, tuple[Change, set[str] | None]] = {
    "the index is gone": (lambda p, _n: drop(p.folder / "out" / "index.json"), {"api: deliver", "web: deliver"}),
    "one tag is gone": (lambda p, _n: untag(p, "web"), {"web: deliver"}),
    "a manifest is gone": (lambda p, _n: drop(blob_of(p, "web", "manifest")), {"web: deliver"}),
    "a config is gone": (lambda p, _n: drop(blob_of(p, "web", "config")), {"web: deliver"}),
    "a layer is gone": (lambda p, _n: drop(blob_of(p, "web", "layer")), None),
    "a layer is short": (lambda p, _n: truncate(blob_of(p, "web", "layer")), None),
    # The image that is delivered first puts it back for the other one, too.
    "the layout's marker is gone": (lambda p, _n: drop(p.folder / "out" / "oci-layout"), None),
    "the whole layout is gone": (lambda p, _n: shutil.rmtree(p.folder / "out"), {"api: deliver", "web: deliver"}),
    "a session file is gone": (lambda p, _n: drop(p.resources / "web" / "session.yml"), {"web: resources"}),
    "a session file elsewhere is gone": (lambda p, _n: drop(p.folder / "elsewhere" / "api.yml"), {"api: resources"}),
    "a session file is changed": (
        lambda p, _n: replace(p.resources / "web" / "session.yml", "MODE", "MODF"),
        {"web: resources"},
    ),
    "a Dockerfile is gone": (lambda p, _n: drop(p.resources / "web" / "Dockerfile"), {"web: resources"}),
    "a layer beside the Dockerfile is gone": (
        lambda p, _n: drop(next((p.resources / "web").glob("layer-1-*.tar"))),
        {"web: resources"},
    ),
    "the CAS lost a session": (lambda p, _n: forget_session(p, "out-web"), {"web: upload"}),
    "the CAS's database is gone": (lambda p, _n: drop(p.state / "cas" / "sessions.sqlite"), {"api: upload", "web: upload"}),
    "the template says something else": (
        lambda p, _n: replace(p.folder / "template.yml", "A: b", "A: c"),
        {"api: policy", "api: resources", "api: upload"},
    ),
    "a file of the folder": (lambda _p, n: write(n / "app" / "secret", b"changed"), None),
    "a file of the folder, with its old size and times": (
        lambda _p, n: write(n / "app" / "secret", bytes(reversed((n / "app" / "secret").read_bytes()))),
        None,
    ),
    "a new file in the folder": (lambda _p, n: write(n / "app" / "new", b"new"), None),
    "a file of the folder is gone": (lambda _p, n: drop(n / "app" / "sub" / "other"), None),
    "a mode in the folder": (lambda _p, n: (n / "app" / "secret").chmod(0o600), None),
    "an attribute in the folder": (lambda _p, n: os.setxattr(n / "app" / "secret", "user.note", b"x"), None),
    "a link in the folder": (lambda _p, n: (n / "app" / "link").symlink_to("secret"), None),
    "the folder's config": (lambda _p, n: replace(n.with_name("native.json"), "NATIVE=", "NATIVF="), None),
    "another image has the source's name": (
        lambda p, n: (write(n / "app" / "secret", b"changed"), make_layout(n, p)),
        None,
    ),
    "an option in the project": (lambda p, _n: replace(p.folder / "sconify.yaml", "MODE:-web", "MODE:-api"), None),
    "the record is damaged": (lambda p, _n: [truncate(path) for path in (p.cache / "settled").iterdir()], set()),
    "the cache is gone": (lambda p, _n: shutil.rmtree(p.cache), None),
}


@pytest.mark.parametrize("name", list(CHANGES), ids=[str(n) for n in range(len(CHANGES))])
def test_whatever_changes_is_noticed_and_mended(project: Place, source: Path, name: str):
    change, expected = CHANGES[name]
    change(project, source)
    ended = run(project)
    assert planned(ended), name
    assert ended.code == 0, ended.stderr
    if expected is not None:
        assert ran(ended) == expected, ended.stderr
    assert all(path.exists() for path in (project.resources / "web" / "session.yml", blob_of(project, "web", "layer")))
    assert not planned(run(project)), "what was put right is not settled"


def test_a_nearer_project_is_noticed(project: Place):
    below = project.folder / "below"
    below.mkdir(exist_ok=True)
    run(project, folder=below)
    assert not planned(run(project, folder=below))
    (below / "sconify.yaml").write_text("version: 1\nproject: other\nimages: {}\n")
    ended = run(project, folder=below)
    assert (ended.code, ended.stdout) == (2, "")
    shutil.rmtree(below)


def test_a_variable_of_the_project_is_noticed(project: Place):
    assert "web: policy" in ran(run(project, MODE="other"))
    assert not planned(run(project, MODE="other"))
    assert planned(run(project))


@pytest.mark.parametrize("variable", ["SOURCE_DATE_EPOCH", "SCONIFY_ROOT_KEY", "DOCKER_HOST"])
def test_other_surroundings_need_a_plan(project: Place, variable: str):
    value = {"SOURCE_DATE_EPOCH": "1", "SCONIFY_ROOT_KEY": "6b" * 32, "DOCKER_HOST": "unix:///elsewhere"}[variable]
    assert planned(run(project, **{variable: value}))


def test_after_a_day_a_plan_is_made_so_that_a_prune_knows_what_is_in_use(project: Place):
    from sconify_tasks.environment import read_environment
    from sconify_tasks.settled.recollection import recall

    environment = read_environment(variables(project))
    where = ["project", str(project.folder), ""]

    def settled(at: int) -> bool:
        found = recall(environment, place=where, begun=at)
        return found is not None and found.is_settled("web")

    now = time.time_ns()
    hour = 3600 * 10**9
    assert [settled(now), settled(now + 23 * hour), settled(now + 25 * hour), settled(now - 2 * hour)] == [
        True,
        True,
        False,
        False,
    ]


def test_nothing_in_the_record_tells_a_secret(native: Path, place: Place):
    (place.folder / "sconify.yaml").write_text(PROJECT.replace("MODE=$", "TOKEN=marker-of-a-secret-$"))
    (place.folder / "template.yml").write_text(TEMPLATE)
    make_layout(native, place)
    assert run(place, MODE="marker-of-a-variable").code == 0
    (record,) = (place.cache / "settled").iterdir()
    assert record.stat().st_mode & 0o777 == 0o600
    assert b"marker-of" not in record.read_bytes()


def test_a_record_that_another_key_made_is_not_believed(project: Place):
    for record in (project.cache / "settled").iterdir():
        text = record.read_bytes()
        # Someone who can write the cache, but lacks the root key, has an image settled that is not.
        changed = text.replace(b'"oci:', b'"OCI:')
        assert changed != text
        record.write_bytes(changed)
    assert planned(run(project))


def test_two_images_written_to_one_place_are_never_settled_together(native: Path, place: Place):
    text = PROJECT.replace("oci:out:web", "oci:out:api").replace("    session: elsewhere/api.yml\n", "")
    (place.folder / "sconify.yaml").write_text(text)
    (place.folder / "template.yml").write_text(TEMPLATE)
    make_layout(native, place)
    assert run(place, "api").code == 0
    assert run(place, "web").code == 0
    assert run(place).code == 2


def test_every_input_from_outside_and_every_effect_is_watched(native: Path, place: Place):
    """A new external input or effect without a watch would leave all images unsettled: slow, and right."""
    from build.small_image import Recorder, order_for, world_of

    from sconify_dodo.front import make_build
    from sconify_tasks.settled import gather

    with world_of(place, Recorder()) as world:
        build = make_build(world, order_for(native, place))
    assert set(build.externals) <= set(gather._EXTERNALS)
    assert {step.name for step in build.steps if step.effect} <= set(gather._EFFECTS)
