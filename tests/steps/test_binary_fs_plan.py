"""The plan with --binary-fs: the same rules for keys, and nothing of encryption left in it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from steps.sample_plan import BINARY_FS, GOLDEN_BINARY_FS, SAMPLE, Plan, golden_text, other_value, sources

from sconify_cache.keys import facts_digest
from sconify_dodo.plan import plan
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.options import Options

BEFORE = Plan(steps=BINARY_FS).keys()
STEPS = pytest.mark.parametrize("step", BINARY_FS, ids=lambda step: step.name)


def changed(plan):
    return {name for name, key in plan.keys().items() if key != BEFORE[name]}


def test_the_golden_keys_have_not_changed():
    assert GOLDEN_BINARY_FS.read_text() == golden_text(BINARY_FS), "bless it with: python tests/steps/sample_plan.py"


@pytest.mark.parametrize("source", sorted(sources(BINARY_FS)))
def test_another_value_of_a_source_gives_new_keys_to_exactly_those_who_take_it(source):
    takers = {step.name for step in BINARY_FS if source in step.inputs.values()}
    assert takers
    assert changed(Plan(values={source: facts_digest("other")}, steps=BINARY_FS)) == takers


@pytest.mark.parametrize("name", sorted({name for step in BINARY_FS for name in step.reads}))
def test_another_value_of_an_option_gives_new_keys_to_exactly_those_who_declare_it(name):
    value = other_value(name)
    assert value != SAMPLE.get(name, BY_NAME[name].initial)
    assert changed(Plan(options={name: value}, steps=BINARY_FS)) == {step.name for step in BINARY_FS if name in step.reads}


@STEPS
def test_another_version_of_a_step_gives_it_a_new_key(step):
    build = Plan(steps=BINARY_FS).build()
    assert build.action(replace(step, version=step.version + 1)).key != BEFORE[step.name]


@STEPS
def test_a_step_takes_inputs_from_steps_above_it_only(step):
    above = {earlier.name for earlier in BINARY_FS[: BINARY_FS.index(step)]}
    assert step.upstream() <= above


@STEPS
def test_no_step_takes_the_key_of_protected_files_but_the_one_that_writes_sessions(step):
    if step.name != "policy":
        assert "external.fspf_key_id" not in step.inputs.values()


def test_the_option_chooses_the_steps():
    usual = {step.name for step in plan(Options.of(SAMPLE))}
    embedding = {step.name for step in plan(Options.of({**SAMPLE, "binary-fs": True}))}
    assert usual - embedding == {"files", "encrypt", "manifest", "verify"}
    assert embedding - usual == {"embedded", "binary_fs", "verify_embedded"}
