"""The measured config: one spelling, every value in its range."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from vectors.make import CONFIG, config_fields

from sconify_tasks.errors import UsageError
from sconify_tasks.sgx.measured_config import decode_config
from sconify_tasks.sgx.measurement import EnclaveError

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "measured_config.json").read_text())


def named(cases):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases])


@named(VECTORS["cases"])
def test_a_config_is_read_and_written_as_the_vector_says(case):
    config = decode_config(bytes.fromhex(case["encoded"]))
    assert config_fields(config) == case["config"]
    assert config.encode().hex() == case["encoded"]


@named(VECTORS["refused"])
def test_a_wrong_config_is_refused_for_its_own_reason(case):
    with pytest.raises(EnclaveError) as refusal:
        decode_config(bytes.fromhex(case["encoded"]))
    assert refusal.value.code == case["error"]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_config_is_refused_or_is_another_proper_one(data):
    encoded = bytearray(CONFIG.encode())
    length = len(encoded.rstrip(b"\0"))
    for position in data.draw(st.lists(st.integers(0, length), min_size=1, max_size=2)):
        encoded[position] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'0129"{}[],:-.eE\\u null')))
    try:
        decoded = decode_config(bytes(encoded))
    except EnclaveError:
        return
    assert decoded.encode() == bytes(encoded)


@pytest.mark.parametrize("text", [b"[" * 60_000, b'{"v":' * 10_000, b"9" * 5000, b'{"v":1e999}', b'{"v":NaN}'])
def test_hostile_json_is_an_error_of_ours(text):
    with pytest.raises(EnclaveError):
        decode_config(text + bytes(-len(text) % 4096))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heap": 4095}, "heap is 4095 bytes"),
        ({"threads": 0}, "threads is 0"),
        ({"fork": True}, "fork is True"),
        ({"heap": 4096.0}, "heap is 4096.0"),
        ({"binary": replace(CONFIG.binary, path="/a/\udcff")}, "not UTF-8"),
        ({"binary": replace(CONFIG.binary, path="/")}, "not normalised"),
        ({"binary": replace(CONFIG.binary, sha256="x")}, "64 lower-case hex digits"),
    ],
)
def test_an_option_out_of_range_is_a_usage_error(change, message):
    with pytest.raises(UsageError, match=message):
        replace(CONFIG, **change)
