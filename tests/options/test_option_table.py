"""One table, and everything made from it says the same."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify_tasks import option_types as kinds
from sconify_tasks.command_line import build_parser, format_help
from sconify_tasks.option_table import BY_NAME, GROUPS, OPTIONS
from sconify_tasks.options import SECRET_OPTIONS, Options, UndeclaredOptionError, is_secret, session_name
from sconify_tasks.schema import option_tables, project_schema, schema_text, with_tables

DOCS = Path(__file__).parents[2] / "docs"
REGENERATE = "run: python -c 'from pathlib import Path; from sconify_tasks.schema import write; write(Path(\"docs\"))'"
UNDOCUMENTED = {"mprotect", "disable-pie-check", "enable-session-upload"}
OURS = {
    *("cas-key", "platform", "toolchain", "key-epoch", "state", "cache", "shared-cache", "threads", "cas-root", "root-key"),
    *("explain", "events", "trace"),
    *("scone-signer-public-key", "scone-signer-passphrase-file", "enclave-mode"),
    *("enclave-attributes", "isvprodid", "isvsvn", "signing-date"),
    *("attest-signer", "disable-configuration-check"),
}


def documented():
    lines = (Path(__file__).parent / "documented_options.txt").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_every_documented_option_is_there_and_nothing_unexplained():
    assert documented() | UNDOCUMENTED | OURS == set(BY_NAME) | {"help"}


def test_command_line_help_schema_and_docs_know_the_same_options():
    flags = {flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")}
    aliases = {f"--{alias}" for option in OPTIONS for alias in option.aliases}
    named = {f"--{name}" for name in BY_NAME}
    assert flags == named | aliases | {"--help"}
    in_help = set(re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)", format_help(), re.MULTILINE))
    assert in_help == named | {"--help"}
    in_schema = set(project_schema()["$defs"]["options"]["properties"])
    added = {f"{option.name}+" for option in OPTIONS if option.yaml and option.repeat}
    assert in_schema == {option.name for option in OPTIONS if option.yaml} | added
    in_docs = set(re.findall(r"^\| (?:`-\w`, )?`(--[a-z0-9-]+)", option_tables(), re.MULTILINE))
    assert in_docs == named


def test_the_docs_and_the_schema_file_are_up_to_date():
    page = (DOCS / "options.md").read_text()
    assert with_tables(page) == page, REGENERATE
    assert (DOCS / "sconify.schema.json").read_text() == schema_text(), REGENERATE


def test_the_docs_name_every_template_variable():
    from sconify_tasks.policy.template import VARIABLES

    page = (DOCS / "options.md").read_text()
    assert {name for name in VARIABLES if f"`${name}`" not in page} == set()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_is_well_formed(option):
    assert option.group in GROUPS
    assert option.help
    assert not option.help.endswith(".")
    assert bool(option.metavar) != option.is_flag
    assert not (option.repeat and option.default is not None)
    if option.default is not None:
        assert option.kind.value(option.show(option.default)) == option.default


def test_names_are_used_once():
    names = [name for option in OPTIONS for name in (option.name, *option.aliases, *option.former)]
    assert len(names) == len(set(names))


def test_options_are_complete_and_jsonable():
    options = Options.of({})
    assert set(options) == set(BY_NAME)
    assert all(isinstance(value, (str, int, bool, tuple, type(None))) for value in options.values())


def test_a_view_holds_exactly_what_was_declared():
    view = Options.of({"heap": 4096}).view({"heap", "dir"})
    assert dict(view) == {"heap": 4096, "dir": ()}


@pytest.mark.parametrize("touch", [lambda view: view["stack"], lambda view: view.get("stack"), lambda view: "stack" in view])
def test_touching_another_option_raises(touch):
    with pytest.raises(UndeclaredOptionError):
        touch(Options.of({}).view({"heap"}))


def test_an_option_that_does_not_exist_is_a_mistake_in_the_program():
    with pytest.raises(UndeclaredOptionError):
        Options.of({"heep": 1})
    with pytest.raises(UndeclaredOptionError):
        Options.of({}).view({"heep"})


def test_options_can_not_be_changed_and_compare_by_value():
    options = Options.of({"heap": 4096})
    with pytest.raises(TypeError):
        options["heap"] = 1
    with pytest.raises(AttributeError):
        options._values = {}
    assert options == Options.of({"heap": 4096}) != Options.of({})
    assert options.but({"heap": 1 << 30}) == Options.of({})


def test_what_must_not_be_guessed_is_secret():
    assert {"env", "command"} <= SECRET_OPTIONS
    assert is_secret("env")
    assert not is_secret("heap")


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("registry.scontain.com:5050/clenimar/test:cartservice", "registry-scontain-com-5050-clenimar-test-cartservice"),
        ("app", "app"),
        ("my_app:1.0", "my-app-1-0"),
        ("oci:/srv/out:1", "out-1"),
    ],
)
def test_the_session_is_named_after_the_encrypted_image(to, name):
    assert session_name(to) == name


@given(st.sampled_from([option.kind for option in OPTIONS]), st.text())
def test_any_text_is_a_value_or_a_value_error(kind, text):
    with contextlib.suppress(ValueError):
        kind.value(text)


@given(st.text(alphabet="/.ab", max_size=12))
def test_an_image_path_is_normal_once_it_was_read(text):
    try:
        path = kinds.IMAGE_PATH.value("/" + text)
    except ValueError:
        assert ".." in text.split("/")
        return
    assert kinds.IMAGE_PATH.value(path) == path
    assert path == "/" or not path.endswith("/")
