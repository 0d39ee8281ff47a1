"""Every option and every input of every step: when it changes, the explanation names it; and a secret one's value is not said."""

from __future__ import annotations

from typing import Any

import pytest
from steps.sample_plan import SAMPLE, Plan, names_of, other_value, sources, step_named

from sconify_cache.digest import Digest
from sconify_cache.keys import facts_digest
from sconify_cache.record import Record
from sconify_tasks.build import Build
from sconify_tasks.explain import Before, _known_reasons
from sconify_tasks.graph import STEPS
from sconify_tasks.option_table import BY_NAME, OPTIONS
from sconify_tasks.options import SECRET_OPTIONS
from sconify_tasks.step import Step
from sconify_tasks.surroundings import NAME, OPTIONS_OF, _options, changed_external, changed_image, changed_options

READ = [(step.name, name) for step in STEPS for name in sorted(step.reads)]
TAKEN = [(step.name, name) for step in STEPS for name in sorted(step.inputs)]
# Options that no step reads and that no external comes from are names of places, or of what is shown.
EXTERNAL = sorted({name for names in OPTIONS_OF.values() for name in names})
IMAGE = {"id": "keyed:0", "layers": ["a", "b"], "config": {"cmd": "1", "env": {"PATH": "1", "TOKEN": "2"}}}


def recorded() -> Before:
    plan, build = Plan(), Plan().build()
    records = {
        step.name: Record(
            key=build.action(step).key,
            step=step.name,
            facts=plan.outputs(step.name).facts,
            components=build.action(step).components,
        )
        for step in STEPS
    }
    return Before(records=records)


BEFORE = recorded()


def reasons(build: Build, step: Step) -> tuple[str, ...]:
    return _known_reasons(build, step, BEFORE, look=False)


@pytest.mark.parametrize(("step", "option"), READ)
def test_a_changed_option_is_named_by_every_step_that_reads_it(step, option):
    build = Plan(options={option: other_value(option)}).build()
    lines = reasons(build, step_named(step))
    assert any(line.startswith(f"--{option}") for line in lines), lines


@pytest.mark.parametrize("option", sorted({name for _, name in READ if name in SECRET_OPTIONS}))
def test_of_a_secret_option_only_that_it_changed_is_said(option):
    value = other_value(option)
    for step in STEPS:
        if option in step.reads:
            text = "\n".join(reasons(Plan(options={option: value}).build(), step))
            for secret in (*(value if isinstance(value, tuple) else (value,)), SAMPLE.get(option) or "TOKEN"):
                assert str(secret) not in text


@pytest.mark.parametrize(("step", "name"), TAKEN)
def test_a_changed_input_is_named_by_every_step_that_takes_it(step, name):
    source = step_named(step).inputs[name]
    build = Plan(values={source: facts_digest("another")}).build()
    lines = reasons(build, step_named(step))
    assert lines
    upstream, _, output = source.partition(".")
    if source == "sign.mrenclave":
        assert any(line.startswith("MRENCLAVE: ") and " -> " in line for line in lines)
    elif upstream == "external":
        assert lines[0] == changed_external(build, output, {})[0]
    else:
        assert any(line.startswith(f"{upstream}.{output.removesuffix('_facts')} ") for line in lines), lines


@pytest.mark.parametrize("name", sorted(names_of("external")))
def test_every_input_from_outside_has_words_of_its_own(name):
    assert name in OPTIONS_OF
    assert (
        changed_external(Plan().build(), name, {}) != changed_external(Plan().build(), "cas_roots", {}) or name == "cas_roots"
    )


@pytest.mark.parametrize("name", EXTERNAL)
def test_a_changed_option_that_an_image_or_a_name_comes_from_is_said_with_both_values(name):
    key = bytes(32)
    old, new = (_options(Plan(options=more).build().options, key) for more in ({}, {name: other_value(name)}))
    (line,) = changed_options(old, new, (name,))
    if name in SECRET_OPTIONS:
        assert line == f"--{name} changed (its value is secret)"
    else:
        assert line.startswith(f"--{name}: ")
        assert " -> " in line or "+ " in line


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.yaml], ids=lambda option: option.name)
def test_what_is_kept_of_the_options_holds_no_secret_value(option):
    kept: Any = _options(Plan(options={option.name: other_value(option.name)}).build().options, bytes(32))
    if option.secret:
        assert str(kept[option.name]).startswith("keyed:")
    assert BY_NAME.keys() >= kept.keys()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"layers": ["a", "x"]}, "the base image: layer 2 of 2 changed"),
        ({"layers": ["a"]}, "the base image: layer 2 of 2 is gone"),
        ({"layers": ["a", "b", "c"]}, "the base image: layer 3 of 3 is new"),
        ({"config": {**IMAGE["config"], "cmd": "2"}}, "the base image: config, cmd"),
        ({"config": {"cmd": "1", "env": {"PATH": "1", "TOKEN": "3"}}}, "the base image: config, env (TOKEN)"),
        ({"config": {"cmd": "1", "env": {"PATH": "1"}}}, "the base image: config, env (TOKEN)"),
        ({"id": "keyed:1"}, "the base image: a file, or its metadata, changed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "change",
)
def test_an_image_is_compared_layer_by_layer_and_key_by_key(change, line):
    assert changed_image("base", IMAGE, {**IMAGE, **change}) == [line]


def test_a_first_build_says_so():
    nothing = Before(records={})
    assert {_known_reasons(Plan().build(), step, nothing) for step in STEPS} == {("never run for this image",)}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_another_version_of_a_step_is_said(step):
    from msgspec.structs import replace

    lines = reasons(Plan().build(), replace(step, version=step.version + 1))
    assert any(f"version {step.version} -> {step.version + 1}" in line for line in lines)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_of_a_step_whose_key_is_as_before_nothing_is_said(step):
    assert reasons(Plan().build(), step) == ()


@pytest.mark.parametrize("source", sorted(sources()))
def test_no_explanation_shows_a_digest(source):
    build = Plan(values={source: facts_digest("another")}).build()
    for step in STEPS:
        for line in reasons(build, step):
            for word in line.replace("…", " ").split():
                with pytest.raises(ValueError, match=r".*"):
                    Digest(word)


def test_the_record_of_the_surroundings_has_no_name_of_a_step():
    assert NAME not in {step.name for step in STEPS}
