"""Action keys: golden ones hold the scheme still; any change of any input gives another key."""

import enum
import json
import math
from pathlib import Path

import pytest
import rfc8785
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from sconify_cache.digest import Digest
from sconify_cache.keys import Action, NotCanonicalError, canonical, content_id, content_id_of, facts_digest, secret_id

GOLDEN = Path(__file__).parents[1] / "golden" / "action_keys.json"
KEY = bytes(range(32))

SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text())["actions"], ids=lambda case: case["why"])
def test_golden_keys_have_not_changed(case):
    """If this fails, every cache of every user is void: bump the version of the step instead, or decide it."""
    action = Action(**case["action"])
    assert canonical(action.components).decode() == case["canonical"]
    assert action.key == case["key"]


BASE = {
    "step": "encrypt",
    "version": 3,
    "tool": "embedded/1",
    "inputs": {"tree": "a" * 64},
    "options": {"heap": 4096, "dir": ["/app"]},
}
CHANGES = [
    {"step": "binary"},
    {"version": 4},
    {"tool": "embedded/2"},
    {"inputs": {"tree": "b" * 64}},
    {"inputs": {"leaves": "a" * 64}},
    {"inputs": {}},
    {"options": {"heap": 8192, "dir": ["/app"]}},
    {"options": {"heap": "4096", "dir": ["/app"]}},
    {"options": {"heap": 4096, "dir": ["/app", "/lib"]}},
    {"options": {"heap": 4096, "dir": "/app"}},
    {"options": {"heap": 4096, "dir": ["/app"], "extra": None}},
]


def test_each_change_gives_another_key():
    keys = {Action(**BASE | change).key for change in CHANGES}
    assert len(keys | {Action(**BASE).key}) == len(CHANGES) + 1


def test_true_and_one_are_different_values():
    assert facts_digest({"fork": True}) != facts_digest({"fork": 1})


def test_order_of_names_and_tuple_or_list_make_no_difference():
    assert facts_digest({"a": 1, "b": (1, 2)}) == facts_digest({"b": [1, 2], "a": 1})


@given(VALUES)
def test_canonical_json_reads_back_as_the_value_it_was_made_of(value):
    assert json.loads(canonical(value)) == value


@given(VALUES | st.dictionaries(st.text(st.characters(max_codepoint=127)), st.text(st.characters(max_codepoint=127))))
def test_canonical_json_is_what_the_rfc8785_library_makes(value):
    assert canonical(value) == rfc8785.dumps(value)


@given(VALUES, VALUES)
def test_different_values_have_different_canonical_forms(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical(one) == canonical(other)) == same


class Word(str, enum.Enum):  # noqa: UP042 - StrEnum has no str() of its own
    """A str whose str() is something else."""

    ON = "on"


def test_a_str_enum_counts_as_its_value():
    assert canonical({"mode": Word.ON}) == b'{"mode":"on"}'


DEEP = [0]
for _ in range(100):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        ({"options": {"heap": 1.0}}, "options.heap", "float is not JSON"),
        ({"a": [0, math.nan]}, r"a\[1\]", "float is not JSON"),
        ({"a": b"bytes"}, "a", "bytes is not JSON"),
        ({"a": {1, 2}}, "a", "set is not JSON"),
        ({"a": Path("/x")}, "a", "PosixPath is not JSON"),
        ({"a": 2**53}, "a", "not exact"),
        ({"a": "caf\udce9"}, "a", "not valid Unicode"),
        ({"caf\udce9": 1}, "value", "not valid Unicode"),
        ({1: 1}, "value", "names are strings, not int"),
        (DEEP, r"\[0\]", "nested deeper"),
    ],
)
def test_what_has_no_canonical_json_is_refused_by_name(value, place, reason):
    with pytest.raises(NotCanonicalError, match=rf"^{place}.*{reason}") as caught:
        canonical(value)
    assert str(caught.value).encode()  # fit to be printed: the value itself, a lone surrogate here, is not in it


def test_a_refusal_never_shows_the_value():
    with pytest.raises(NotCanonicalError) as caught:
        canonical({"password": "hunter2\udce9"})
    assert "hunter2" not in str(caught.value)


@given(st.binary(max_size=3000))
def test_content_ids_are_keyed_blake3(data):
    import io

    expected = blake3(data, key=KEY).hexdigest()
    assert content_id(KEY, data) == content_id_of(KEY, io.BytesIO(data)) == expected
    assert content_id(bytes(32), data) != expected


def test_secret_values_enter_keys_only_as_keyed_ids():
    assert secret_id(KEY, "hunter2") == content_id(KEY, b'"hunter2"')
    assert secret_id(KEY, "hunter2") != secret_id(bytes(32), "hunter2")


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33])
def test_a_key_of_another_length_is_refused(key):
    with pytest.raises(ValueError, match="32 bytes"):
        content_id(key, b"")


@pytest.mark.parametrize("text", ["", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
def test_a_digest_is_64_lower_case_hex_digits(text):
    with pytest.raises(ValueError, match="not a BLAKE3 digest"):
        Digest(text)
