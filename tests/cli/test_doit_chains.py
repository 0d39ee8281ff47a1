"""Images made from images of the same project: order, cutoff, failures, and what of a confidential image can be taken."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from build.small_image import OTHER, SECRET, Place, write
from cli.commands import run

PROJECT = """\
version: 1
project: shop
defaults: {base: scratch, allow-debug-mode: true, disable-pie-check: true, binary: /bin/prog}
images:
  last: {from: "oci:out-side:1", to: "oci:out-last:1", binary: /bin/third, command: /bin/third, dir: [/other]}
  side: {from: "oci:out-api:1", to: "oci:out-side:1", binary: /bin/other, command: /bin/other, dir: [/plain], plain-file: [/bin/third], plain: [/other]}
  api: {from: "dir:../native", to: "oci:out-api:1", dir: [/app], plain: [/plain, /other], plain-file: [/bin/other, /bin/third]}
  alone: {from: "dir:../native", to: "oci:out-alone:1", dir: [/app]}
"""
RAN = re.compile(r"^(\w+): (\w+) \(", re.MULTILINE)


@pytest.fixture
def project(native, place):
    for name in ("other", "third"):
        shutil.copy2(native / "bin" / "prog", native / "bin" / name)
    write(native / "other" / "file", b"another file\n")
    (place.folder / "sconify.yaml").write_text(PROJECT)
    return place


def change(project: Place, old: str, new: str) -> None:
    file = project.folder / "sconify.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def made(project: Place) -> set[str]:
    return {path.parent.name.removeprefix("out-") for path in project.folder.glob("out-*/index.json")}


def ran(project: Place, *words: str) -> set[tuple[str, str]]:
    ended = run(project, ["doit", "sconify", "-v", *words])
    assert ended.code == 0, ended.stderr
    return set(RAN.findall(ended.stderr))


def digests(project: Place) -> dict[str, str]:
    return {
        name: json.loads((project.folder / f"out-{name}" / "index.json").read_text())["manifests"][0]["digest"]
        for name in made(project)
    }


def names(stdout: str) -> list[str]:
    return [line.split()[0] for line in stdout.splitlines()]


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_what_an_image_is_made_from_is_chosen_too_and_made_first(project, jobs):
    ended = run(project, ["doit", "sconify", "-n", jobs, "last"])
    assert ended.code == 0, ended.stderr
    assert names(ended.stdout) == ["api", "side", "last"]
    assert made(project) == {"api", "side", "last"}
    again = run(project, ["doit", "sconify", "-n", jobs, "last"])
    assert (again.code, again.stdout, again.stderr) == (0, ended.stdout, "")


def test_a_change_at_the_head_goes_down_the_chain_and_gives_what_a_clean_build_gives(project, native):
    ended = run(project, ["doit", "sconify"])
    assert ended.code == 0, ended.stderr
    before = digests(project)
    write(native / "other" / "file", b"changed\n")
    assert run(project, ["doit", "sconify", "-n", "4"]).code == 0
    after = digests(project)
    assert {name for name in after if after[name] != before[name]} == {"api", "side", "last"}
    shutil.rmtree(project.cache)
    for name in after:
        shutil.rmtree(project.folder / f"out-{name}")
    assert run(project, ["doit", "sconify", "-n", "1"]).code == 0
    assert digests(project) == after


def test_where_the_upstream_image_comes_out_equal_nothing_downstream_runs(project, native):
    ended = run(project, ["doit", "sconify"])
    assert ended.code == 0, ended.stderr
    write(native / "not-selected", b"new\n")
    found = ran(project)
    assert ("api", "files") in found
    assert {image for image, _ in found} == {"api", "alone"}
    shutil.rmtree(project.folder / "out-api")
    found = ran(project)
    assert ("api", "deliver") in found
    assert {image for image, _ in found} == {"api"}


def test_continue_leaves_out_only_what_is_made_from_the_image_that_failed(project):
    change(project, 'to: "oci:out-api:1", dir: [/app]', 'to: "oci:out-api:1", dir: [/nothing]')  # fmt: skip
    ended = run(project, ["doit", "sconify", "--continue"])
    assert ended.code == 2
    assert made(project) == {"alone"}
    assert len(ended.errors) == 1
    assert "side: left out: it is made from api" in ended.stderr
    assert "last: left out: it is made from side" in ended.stderr


def test_continue_does_not_build_on_an_old_image_whose_native_is_gone(project):
    ended = run(project, ["doit", "sconify"])
    assert ended.code == 0, ended.stderr
    change(project, 'api: {from: "dir:../native"', 'api: {from: "dir:../gone"')
    change(project, "dir: [/plain]", "dir: [/plain], env: [A=1]")
    ended = run(project, ["doit", "sconify", "--continue"])
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert "side: left out" in ended.stderr
    assert "last: left out" in ended.stderr


def test_a_circle_is_an_error_that_names_it(project):
    change(project, 'api: {from: "dir:../native"', 'api: {from: "oci:out-last:1"')
    for words in (["last"], ["api"], [], ["alone"]):
        ended = run(project, ["doit", "sconify", *words])
        assert (ended.code, ended.stdout) == (2, "")
        assert len(ended.errors) == 1
        assert re.search("(last <- side <- api <- last)|(api <- last <- side <- api)", ended.errors[0])
    assert made(project) == set()


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("binary: /bin/other, command: /bin/other", "command: /bin/prog", "/bin/prog is of use only to itself"),
        ("dir: [/plain]", "dir: [/app]", "is of use only to itself"),
        ("dir: [/plain]", "plain-file: [/app/secret]", "is of use only to itself"),
        ("dir: [/plain]", "dir: [/fspf]", "is of use only to itself"),
        ("dir: [/plain]", "base: 'oci:out-api:1'", "is a confidential image"),
        ("dir: [/plain]", "dir: [/plain], key-epoch: 4", "another project or key epoch"),
        ("command: /bin/other, ", "", "--command"),
    ],
)
def test_of_a_confidential_image_nothing_is_taken_that_only_it_can_read(project, old, new, part):
    change(project, ", plain-file: [/bin/third], plain: [/other]}", "}")
    change(project, old, new)
    ended = run(project, ["doit", "sconify", "side"])
    assert (ended.code, ended.stdout) == (2, ""), ended.stderr
    assert len(ended.errors) == 1, ended.stderr
    assert part in ended.errors[0]
    assert made(project) == {"api"}


def test_the_session_has_nothing_of_the_upstream_images_and_no_layer_its_plaintext(project):
    assert run(project, ["doit", "sconify", "side"]).code == 0
    session = (project.resources / "side" / "session.yml").read_text()
    assert "SCONE_CONFIG_ID" not in session
    assert "SCONE_CAS_ADDR" not in session
    assert "marker-of-the-native-environment" not in session
    for blob in (project.folder / "out-side" / "blobs" / "sha256").iterdir():
        assert SECRET not in blob.read_bytes()
        assert OTHER[:64] not in blob.read_bytes()


def test_in_an_engine_the_image_just_delivered_counts_and_not_what_was_listed_at_the_start(project, native, engine):
    """Also where one is named with its transport and the other without."""
    api, side = engine.name("chain-api"), engine.name("chain-side")
    change(project, '"oci:out-api:1", dir', f'"{api}", dir')
    change(project, '{from: "oci:out-api:1", to: "oci:out-side:1"', f'{{from: "docker:{api}", to: "docker:{side}"')
    change(project, 'from: "oci:out-side:1"', f'from: "{side}"')
    environment = {"DOCKER_HOST": engine.host}

    def layers_and_ran():
        ended = run(project, ["doit", "sconify", "-v", "last"], env=environment)
        assert ended.code == 0, ended.stderr
        inspected = engine.client.api.inspect_image(side)
        return inspected["RootFS"]["Layers"], {image for image, _ in RAN.findall(ended.stderr)}

    first, _ = layers_and_ran()
    assert layers_and_ran() == (first, set())
    write(native / "other" / "file", b"changed\n")
    second, images = layers_and_ran()
    assert images == {"api", "side", "last"}
    assert second != first
    assert layers_and_ran() == (second, set())
    write(native / "other" / "file", b"another file\n")
    assert layers_and_ran()[0] == first
    engine.client.images.remove(api, force=True)
    found, images = layers_and_ran()
    assert (found, images) == (first, {"api"})


def test_an_image_that_was_settled_is_not_skipped_when_the_one_that_it_is_made_from_is_stale(project, native):
    for _ in range(3):  # until it is noted that nothing is left to do
        ended = run(project, ["doit", "sconify"])
    assert ended.code == 0, ended.stderr
    assert list((project.cache / "settled").iterdir())
    before = digests(project)
    write(native / "other" / "file", b"changed\n")
    ended = run(project, ["doit", "sconify"])
    assert ended.code == 0, ended.stderr
    done = {image for image, _ in re.findall(r"^(\w+): (\w+) done", ended.stderr, re.MULTILINE)}
    assert {"api", "side", "last"} <= done
    after = digests(project)
    assert {name for name in after if after[name] != before[name]} == {"api", "side", "last"}


def test_of_settled_images_those_are_kept_that_are_made_of_kept_ones(tmp_path):
    from sconify_dodo.front import Order, _kept
    from sconify_tasks.options import Options

    def order(name: str, *upstream: str) -> Order:
        return Order(name=name, options=Options.of({}), resources=tmp_path, upstream=upstream)

    orders = [order("api"), order("side", "api"), order("last", "side"), order("alone"), order("next", "alone")]
    assert _kept(orders, frozenset({"side", "last", "alone", "next"})) == {"alone", "next"}
