"""Names of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parts.images import built, file, layer

from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.image.references import open_source, parse_reference, split_layout
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sinks import Sinks

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "normal", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.10", "docker.io/library/alpine:3.10", "alpine:3.10"),
        ("my/app", "docker.io/my/app:latest", "my/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/my/app:1", "docker.io/my/app:1", "my/app:1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("registry.example:5050/a/b/c:t", "registry.example:5050/a/b/c:t", "registry.example:5050/a/b/c:t"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}", f"app@{DIGEST}"),
        (f"host.x/app:1@{DIGEST}", f"host.x/app:1@{DIGEST}", f"host.x/app:1@{DIGEST}"),
        ("A/app", "A/app:latest", "A/app:latest"),
    ],
)
def test_references_have_one_normal_form(text, normal, familiar):
    reference = parse_reference(text)
    assert (str(reference), reference.familiar) == (normal, familiar)


@pytest.mark.parametrize(
    "text",
    ["", ":", "App", "a//b", "/a", "a/", "a:", "a:b:c", "a@", "a@sha256:12", "a b", "-a", "a-", "a..b", "a/../b", "../a", "a:.t", "a:" + "t" * 129,
     "x" * 300, "a\n", "a:t\n", "ü", "host:x/a", "a.b:99999999/c", "http://a/b", "a@md5:" + "0" * 32, "-" * 100_000, "a" * 100_000],
)  # fmt: skip
def test_what_an_engine_would_refuse_is_refused(text):
    with pytest.raises(UsageError, match="not an image reference"):
        parse_reference(text)


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_an_error(text):
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
    assert "/" not in reference.file_name


def test_file_names_tell_repositories_apart():
    assert parse_reference("localhost:5000/a/b").file_name == "localhost=5000+a+b"
    assert parse_reference("a/b").file_name != parse_reference("a_b").file_name


def test_layout_names():
    assert [(str(folder), tag) for folder, tag in map(split_layout, ["/a/b", "/a/b:t", "/a:5/b", "/a:5/b:t", "rel"])] == [
        ("/a/b", ""), ("/a/b", "t"), ("/a:5/b", ""), ("/a:5/b", "t"), ("rel", ""),
    ]  # fmt: skip
    for bad in ("", ":t", "/a:", "/a:b c"):
        with pytest.raises(UsageError):
            split_layout(bad)


def no_engine():
    import docker

    return docker.DockerClient(base_url="unix:///nonexistent/docker.sock")


def opened(ref, tmp_path, docker=no_engine):
    return open_source(ref, docker=docker, default_oci_store=tmp_path / "store")


def test_every_transport_opens_its_source(tmp_path):
    (tmp_path / "root").mkdir()
    assert opened(f"dir:{tmp_path}/root", tmp_path).name == f"dir:{tmp_path}/root"
    assert opened("scratch", tmp_path).diff_ids == ()
    sink, name = Sinks(docker=no_engine, default_oci_store=tmp_path).open(f"oci:{tmp_path}/oci:t")
    sink.deliver(built(layer(tmp_path, file(b"/f"))), ScratchSource(), name)
    assert opened(f"oci:{tmp_path}/oci:t", tmp_path).name == f"oci:{tmp_path}/oci:t"
    assert opened(f"oci:{tmp_path}/oci", tmp_path).lstat(b"/f") is not None


def test_without_an_engine_a_bare_name_is_the_local_stores(tmp_path):
    with pytest.raises(UnavailableError, match="no Docker Engine answers"):
        opened("my/app:1", tmp_path)
    sink, name = Sinks(docker=no_engine, default_oci_store=tmp_path / "store").open("my/app:1")
    sink.deliver(built(layer(tmp_path, file(b"/f"))), ScratchSource(), name)
    source = opened("my/app:1", tmp_path)
    assert source.name == f"oci:{tmp_path}/store/docker.io+my+app:1"
    with pytest.raises(UnavailableError, match="no image of that tag"):
        opened("my/app:2", tmp_path)


def test_an_engine_that_was_asked_for_must_answer(tmp_path):
    with pytest.raises(UnavailableError, match="No such file") as caught:
        opened("docker:app", tmp_path)
    assert caught.value.exit_code == 3
    assert "DOCKER_HOST" in caught.value.hint


@pytest.mark.parametrize("ref", ["registry:app"])
def test_what_is_not_built_says_so(tmp_path, ref):
    for open_it in (lambda: opened(ref, tmp_path), lambda: Sinks(docker=no_engine, default_oci_store=tmp_path).open(ref)):
        with pytest.raises(UsageError, match="not built yet"):
            open_it()


@pytest.mark.parametrize("ref", ["dir:/x", "scratch", f"app@{DIGEST}", "docker:", "oci:"])
def test_what_cannot_be_a_destination_is_refused(tmp_path, ref):
    with pytest.raises(UsageError):
        Sinks(docker=no_engine, default_oci_store=tmp_path).open(ref)


def test_one_run_asks_for_an_engine_once(tmp_path):
    asked = []

    def no_answer():
        asked.append(1)
        return no_engine()

    sinks = Sinks(docker=no_answer, default_oci_store=tmp_path / "store")
    names = [sinks.open(f"app{number}:1")[1] for number in range(5)]
    assert (names, asked) == (["1"] * 5, [1])
    with pytest.raises(UnavailableError):
        sinks.open("docker:app")
