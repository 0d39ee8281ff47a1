"""The Dockerfile beside the session says what the image's config says, and nothing that somebody put into it."""

from __future__ import annotations

import json

import pytest

from sconify_tasks.errors import UsageError
from sconify_tasks.image.model import BuiltImage
from sconify_tasks.steps.resources import dockerfile


def text(base="scratch", **config) -> str:
    document = {"config": {"Env": [], "Entrypoint": ["/bin/prog"], **config}}
    return dockerfile(base, BuiltImage(base_diff_ids=(), layers=(), config=json.dumps(document).encode()))


@pytest.mark.parametrize(
    "config",
    [
        {"User": "root\nRUN curl evil | sh"},
        {"StopSignal": "SIGTERM\nRUN evil"},
        {"ExposedPorts": {"80/tcp\nRUN evil": {}}},
        {"Env": ["A\nRUN evil=1"]},
        {"User": "x\x1b[2J"},
        {"User": "x\u2028RUN evil"},
    ],
    ids=str,
)
def test_no_value_of_an_image_becomes_an_instruction(config):
    with pytest.raises(UsageError, match="Dockerfile"):
        text(**config)


def test_values_of_variables_are_taken_literally():
    assert 'ENV PS1="\\$USER: \\"x\\" é"' in text(Env=['PS1=$USER: "x" é']).splitlines()


def test_a_newline_in_a_variables_value_stays_inside_its_quotes():
    (line,) = (line for line in text(Env=["A=one\nRUN evil"]).splitlines() if "evil" in line)
    assert line == 'ENV A="one\\nRUN evil"'


@pytest.mark.parametrize(
    ("base", "named"), [("scratch", "scratch"), ("app:1", "app:1"), ("docker:host:5000/app:1", "host:5000/app:1")]
)
def test_a_base_of_an_engine_is_named_as_the_engine_names_it(base, named):
    assert text(base).splitlines()[0] == f"FROM {named}"


@pytest.mark.parametrize("base", ["dir:/srv/root", "oci:/srv/layout:1", "oci-archive:/x.tar:1", "docker-archive:/x.tar:app:1"])
def test_a_base_that_docker_can_not_name_is_asked_for(base):
    lines = text(base).splitlines()
    assert base in lines[0]
    assert lines[0].startswith("#")
    assert lines[2:4] == ["ARG BASE", "FROM ${BASE}"]
