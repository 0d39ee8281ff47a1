"""The config of the image that comes out."""

from __future__ import annotations

import json

import pytest

from sconify_tasks.errors import UsageError
from sconify_tasks.image.compose import compose_config, merge_env, refuse_native_as_base
from sconify_tasks.image.config import identity_of, parse_config
from sconify_tasks.image.model import ImageConfig, Sha256

ONE, TWO, THREE = (Sha256("sha256:" + digit * 64) for digit in "123")
BASE = ImageConfig(
    env=("PATH=/bin", "LANG=C"), cmd=("/bin/sh",), user="base", labels={"os": "alpine"}, exposed_ports=("1/tcp",)
)
NATIVE = ImageConfig(
    entrypoint=("python3",), cmd=("app.py",), env=("TOKEN=s3cret",), user="1000", workdir="/app", exposed_ports=("80/tcp", "443/tcp"),
    volumes=("/data",), stop_signal="SIGINT", labels={"secret": "label"}, healthcheck=True, raw={"history": [{"created_by": "COPY s3cret"}]},
)  # fmt: skip


def composed(**changes):
    arguments = {
        "base": BASE, "native": NATIVE, "entrypoint": "/usr/bin/python3", "env": ["SCONE_HEAP=1G"],
        "base_diff_ids": (ONE,), "layer_diff_ids": (TWO, THREE), "epoch": 1735689600,
    }  # fmt: skip
    return compose_config(**{**arguments, **changes})


def test_the_whole_config():
    assert json.loads(composed()) == {
        "architecture": "amd64",
        "os": "linux",
        "created": "2025-01-01T00:00:00Z",
        "config": {
            "Entrypoint": ["/usr/bin/python3"],
            "Cmd": None,
            "Env": ["PATH=/bin", "LANG=C", "SCONE_HEAP=1G"],
            "User": "1000",
            "ExposedPorts": {"443/tcp": {}, "80/tcp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
            "Labels": {"os": "alpine"},
        },
        "rootfs": {"type": "layers", "diff_ids": [ONE, TWO, THREE]},
    }


def test_nothing_else_of_the_native_image_comes_along():
    assert b"s3cret" not in composed()
    assert b"label" not in composed().lower().replace(b'"labels"', b"")
    assert b"app.py" not in composed()


def test_equal_inputs_give_equal_bytes_and_the_date_is_an_input():
    assert composed() == composed()
    assert composed(epoch=0) != composed()


def test_a_user_may_be_given():
    assert json.loads(composed(user="7:7"))["config"]["User"] == "7:7"
    assert "User" not in json.loads(composed(user=""))["config"]


def test_a_name_in_the_environment_comes_once_with_the_last_value():
    assert merge_env(["A=1", "B=x=y", "C", "A=2"], ["A=3", "D=\n"]) == ["A=3", "B=x=y", "C", "D=\n"]


def test_a_base_that_holds_the_native_image_is_refused():
    refuse_native_as_base((ONE, TWO), (ONE, THREE))
    refuse_native_as_base((ONE, TWO), ())
    with pytest.raises(UsageError, match="contains the native image"):
        refuse_native_as_base((ONE, TWO, THREE), (ONE, TWO))


def test_null_absent_and_empty_are_one_identity():
    engine = b'{"architecture":"amd64","os":"linux","config":{"Hostname":"","Env":null,"Cmd":[],"Labels":{},"User":"","Volumes":null}}'
    registry = b'{"architecture":"amd64","os":"linux","config":{}}'
    assert identity_of(parse_config(engine), (ONE,)) == identity_of(parse_config(registry), (ONE,))
    assert identity_of(parse_config(registry), (TWO,)) != identity_of(parse_config(registry), (ONE,))


@pytest.mark.parametrize(
    "change", [{"Env": ["A=2"]}, {"Cmd": ["x"]}, {"User": "1"}, {"Labels": {"a": "b"}}, {"Volumes": {"/v": {}}}, {"StopSignal": "2"},
               {"Entrypoint": ["x"]}, {"WorkingDir": "/w"}, {"ExposedPorts": {"1/tcp": {}}}, {"Healthcheck": {"Test": ["CMD"]}}],
)  # fmt: skip
def test_every_part_of_the_config_is_part_of_the_identity(change):
    config = {"architecture": "amd64", "os": "linux", "config": {}}
    before = identity_of(parse_config(json.dumps(config).encode()), ())
    assert identity_of(parse_config(json.dumps({**config, "config": change}).encode()), ()) != before


@pytest.mark.parametrize(
    "bad", [b"", b"[]", b"{", b"\xff", b'{"config": [1]}', b'{"config": {"Env": "A"}}', b'{"config": {"Env": [1]}}', b'{"os": 1}',
            b'{"config": {"Env": ["\\ud800"]}}', b'{"config": {"Cmd": ["a\\u0000b"]}}', b'{"config": {"Labels": {"a": 1}}}', b"[" * 100000],
)  # fmt: skip
def test_damaged_configs_are_errors_for_people(bad):
    with pytest.raises(UsageError):
        parse_config(bad)
