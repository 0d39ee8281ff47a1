"""A sealed record opens under its key, for its action, unchanged: anything else is nothing."""

import json

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from sconify_cache.digest import Digest
from sconify_cache.keys import Action, NotCanonicalError, canonical
from sconify_cache.record import Record, seal, seal_record, unseal, unseal_record

KEY = bytes(range(32))
NAME = Digest("ab" * 32)
RECORD = Record(
    key=NAME,
    step="encrypt",
    outputs={"layer": Digest("01" * 32), "manifest": Digest("02" * 32)},
    facts={"tag": "é" * 3, "files": 12},
    components={"step": "encrypt", "version": 1, "inputs": {"tree": "cd" * 32}},
    secret=True,
)
TEXT = seal_record(RECORD, KEY)


def test_a_sealed_record_reads_back_as_it_was():
    assert unseal_record(TEXT, KEY, NAME) == RECORD


def test_a_sealed_record_is_json_with_its_mac_in_front():
    text = json.loads(TEXT)
    assert list(text) == ["mac", "record"]
    assert text["mac"] == blake3(canonical(text["record"]), key=KEY).hexdigest()


def test_the_record_of_an_action_has_its_key_and_components():
    action = Action(step="sign", version=2, inputs={"elf": "a" * 64}, options={"heap": 4096})
    made = Record.of(action, outputs={"elf": NAME}, facts={"mrenclave": "00"})
    assert (made.key, made.step, made.components, made.secret) == (action.key, "sign", action.components, False)
    assert unseal_record(seal_record(made, KEY), KEY, action.key) == made


def test_another_projects_record_is_nothing():
    assert unseal_record(TEXT, bytes(32), NAME) is None


def test_a_record_under_another_actions_name_is_nothing():
    assert unseal_record(TEXT, KEY, Digest("ef" * 32)) is None


@given(st.integers(0, len(TEXT) - 1), st.characters())
def test_a_record_with_any_character_changed_is_nothing(position, character):
    changed = TEXT[:position] + character + TEXT[position + 1 :]
    assert (unseal_record(changed, KEY, NAME) == RECORD) == (changed == TEXT)


@given(st.integers(0, len(TEXT) - 1))
def test_a_record_that_was_cut_is_nothing(length):
    assert unseal_record(TEXT[:length], KEY, NAME) is None


@given(st.none() | st.text() | st.binary() | st.integers() | st.floats())
def test_nothing_else_opens(planted):
    assert unseal(planted, KEY) is None


@pytest.mark.parametrize("body", [{"v": 2, "kind": "action", "key": NAME}, {"v": 1, "kind": "latest", "key": NAME}, {}])
def test_authentic_text_of_another_kind_or_version_is_no_record(body):
    assert unseal_record(seal(body, KEY), KEY, NAME) is None


@pytest.mark.parametrize("facts", [{"seconds": 1.5}, {"name": "\udce9"}, {"raw": b""}])
def test_facts_that_are_not_json_are_refused_when_sealed(facts):
    with pytest.raises(NotCanonicalError, match=r"^facts\."):
        seal_record(Record(key=NAME, step="s", facts=facts), KEY)
