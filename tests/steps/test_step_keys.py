"""Every input and every declared option of every step is in its key, and nothing else is."""

from __future__ import annotations

import json

import pytest
from steps.sample_plan import BINARY_FS, GOLDEN, SAMPLE, Plan, golden_text, other_value, sources

from sconify_cache.keys import facts_digest
from sconify_dodo.plan import plan
from sconify_tasks.graph import STEPS as ALL
from sconify_tasks.option_checks import NOT_BUILT
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.options import SECRET_OPTIONS, Options, UndeclaredOptionError

BEFORE = Plan().keys()
STEPS = pytest.mark.parametrize("step", ALL, ids=lambda step: step.name)


def changed(plan: Plan) -> set[str]:
    return {name for name, key in plan.keys().items() if key != BEFORE[name]}


def test_the_golden_keys_have_not_changed():
    assert GOLDEN.read_text() == golden_text(), "see what changed; bless it with: python tests/steps/sample_plan.py"


@pytest.mark.parametrize("source", sorted(sources()))
def test_another_value_of_a_source_gives_new_keys_to_exactly_those_who_take_it(source):
    takers = {step.name for step in ALL if source in step.inputs.values()}
    assert takers
    assert changed(Plan(values={source: facts_digest("other")})) == takers


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_another_value_of_an_option_gives_new_keys_to_exactly_those_who_declare_it(name):
    value = other_value(name)
    assert value != SAMPLE.get(name, BY_NAME[name].initial)
    assert changed(Plan(options={name: value})) == {step.name for step in ALL if name in step.reads}


@STEPS
def test_another_version_of_a_step_gives_it_a_new_key(step):
    from msgspec.structs import replace

    build = Plan().build()
    assert build.action(replace(step, version=step.version + 1)).key != BEFORE[step.name]


@STEPS
def test_a_step_can_see_no_option_that_it_does_not_declare(step):
    view = Options.of(SAMPLE).view(step.reads)
    assert set(view) == step.reads
    for name in BY_NAME.keys() - step.reads:
        with pytest.raises(UndeclaredOptionError):
            view[name]
        with pytest.raises(UndeclaredOptionError):
            view.get(name)


@STEPS
def test_a_step_takes_inputs_from_steps_above_it_only(step):
    above = {earlier.name for earlier in ALL[: ALL.index(step)]}
    assert step.upstream() <= above


@STEPS
def test_a_key_that_opens_protected_content_is_in_the_key_of_whoever_uses_it(step):
    """Steps that seal or open protected files differ by the key's name, never by the key."""
    if "fspf_key" in step.run.__code__.co_names:
        assert "external.fspf_key_id" in step.inputs.values()


@STEPS
def test_steps_that_look_at_the_native_or_the_base_image_have_its_identity_in_their_key(step):
    from inspect import getmodule, getsource

    source = getsource(getmodule(step.run))
    taken = set(step.inputs.values())
    # Contents are named by the trees that list them; everything else by the image's identity.
    if "context.native()" in source:
        assert taken & {"external.native", "files.secret", "files.public"}
    if "context.base()" in source:
        assert taken & {"external.base", "image.base"}


def test_another_root_key_or_project_gives_new_keys_to_steps_that_take_secrets():
    takers = {
        step.name
        for step in ALL
        if any(other.secret for other in ALL if other.name in step.upstream())
        or step.reads & SECRET_OPTIONS & SAMPLE.keys()
        or "external.native" in step.inputs.values()
    }
    assert changed(Plan(root=bytes([1]) * 32)) == takers
    assert changed(Plan(project="another")) == takers


def test_no_component_of_a_public_step_names_the_native_images_content_by_an_unkeyed_digest():
    """Public records are shared: from an unkeyed digest of an image that is otherwise known, one file could be guessed."""
    identity = facts_digest("sample external.native")
    public = {step.name for step in ALL if not step.secret}
    for name, components in Plan().components().items():
        if name in public:
            text = json.dumps(components)
            assert identity not in text
            assert facts_digest(identity) not in text, name


def test_secret_options_are_in_no_component():
    text = json.dumps(Plan().components())
    assert "TOKEN" not in text
    assert "main.py" not in text
    assert "/usr/share/zoneinfo" in text


def test_every_option_is_read_refused_or_belongs_to_the_front_door():
    """Nothing that was asked for is silently left out."""
    read = {name for step in (*ALL, *BINARY_FS) for name in step.reads} | {"binary-fs"}  # which chooses the steps
    # Part of an external identity, of names and keys, or of where and how the program works and what it shows.
    front = {
        *("from", "name", "key-epoch", "platform", "root-key", "state", "cache", "debug", "verbose", "no-color"),
        *("explain", "events", "trace", "shared-cache"),
        *("template", "toolchain", "enable-session-upload"),
        # Which key it is enters keys as MRSIGNER; where it lies, and what opens it, does not matter.
        *("scone-signer", "scone-signer-public-key", "scone-signer-passphrase-file"),
    }
    # Said on the command line and answered with a warning, or true in any case.
    told = {"cli", "crosscompiler", "disable-replace-unsconifiable-binaries"}
    assert BY_NAME.keys() - read - front - told - NOT_BUILT == set()


def test_without_upload_there_is_no_upload_step():
    with_upload = plan(Options.of(SAMPLE))
    without = plan(Options.of({**SAMPLE, "disable-session-upload": True}))
    assert {step.name for step in with_upload} - {step.name for step in without} == {"upload"}
