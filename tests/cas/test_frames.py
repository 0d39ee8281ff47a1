"""Frames: what is written is read, what is hostile is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify_tasks.cas.frames import PREFIX, RefusedError, decode_body, encode_frame, error_frame, expect, hex_bytes

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key != "v"), values, max_size=5))
def test_every_message_survives_the_round_trip(message):
    frame = encode_frame(message)
    assert PREFIX.unpack(frame[:4]) == (len(frame) - 4,)
    assert decode_body(frame[4:]) == message


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_crash(body):
    with contextlib.suppress(RefusedError):
        decode_body(body)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad-request"),
        (b"\xff\xfe", "bad-request"),
        (b"[1]", "bad-request"),
        (b"null", "bad-request"),
        (b'{"v":1} ' + b"x", "bad-request"),
        (b'{"v":1,"v":1}', "bad-request"),
        (b'{"v":1,"a":NaN}', "bad-request"),
        (b'{"v":1,"a":' + b"[" * 200_000, "bad-request"),
        (b'{"v":1,"a":' + b"9" * 10_000 + b"}", "bad-request"),
        (b"{}", "unsupported-version"),
        (b'{"v":2}', "unsupported-version"),
        (b'{"v":true}', "unsupported-version"),
        (b'{"v":1.0}', "unsupported-version"),
        (b'{"v":"1"}', "unsupported-version"),
    ],
)
def test_hostile_bodies_are_refused(body, code):
    with pytest.raises(RefusedError) as refused:
        decode_body(body)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "request_", [{}, {"type": 7, "a": 1}, {"type": "x"}, {"type": "x", "a": 1, "b": 2}, {"type": "x", "b": 1}]
)
def test_a_request_has_its_keys_and_no_others(request_):
    with pytest.raises(RefusedError):
        expect(request_, "x", ("a",))


@pytest.mark.parametrize("value", [None, 7, "", "0", "0G", "AB", "ab ", " ab", "abab", "é1"])
def test_hex_is_lower_case_and_of_its_length(value):
    with pytest.raises(RefusedError, match="1 bytes"):
        hex_bytes(value, 1, "field")


def test_an_error_reply_shows_no_escape_sequences_of_what_it_quotes():
    frame = error_frame(RefusedError("no \x1b[31msession\r", code="bad-request", hint="next line"))
    assert json.loads(frame[4:])["error"] == {"code": "bad-request", "message": "no ?[31msession?\nnext line"}
