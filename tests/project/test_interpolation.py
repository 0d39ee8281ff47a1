"""`${NAME}` in options: what it comes to, what is refused, and that no value is ever shown."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.project import load_project

SET = {
    "TAG": "1.2",
    "EMPTY": "",
    "LIST": "[/a, /b]",
    "WORD": "null",
    "YES": "true",
    "DOLLAR": "a$b${TAG}",
    "HEAP": "2G",
    "_x9": "u",
}


def loaded(folder, option, variables=None):
    path = folder / "sconify.yaml"
    path.write_text(f"version: 1\nproject: p\nimages:\n  a:\n    {option}\n")
    return load_project(path, variables=SET if variables is None else variables)


def refused(folder, option, variables=None):
    with pytest.raises(UsageError) as caught:
        loaded(folder, option, variables)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder}/sconify.yaml:5: ")
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${TAG}", "1.2"),
        ("app:${TAG}", "app:1.2"),
        ("${TAG}-${TAG}", "1.2-1.2"),
        ("${_x9}", "u"),
        ("${NOT_SET:-fallback}", "fallback"),
        ("a${EMPTY}b", "ab"),
        ("${EMPTY:-fallback}", "fallback"),
        ("${TAG:-fallback}", "1.2"),
        ("a${NOT_SET:-}b", "ab"),
        ("${NOT_SET:-a b:c/d-e{f}", "a b:c/d-e{f"),
        ("${WORD}", "null"),
        ("${LIST}", "[/a, /b]"),
        ("${DOLLAR}", "a$b${TAG}"),  # what comes from the environment is not read again
        ("$$", "$"),
        ("$$${TAG}", "$1.2"),
        ("$${TAG}", "${TAG}"),
        ("a$$b$$c", "a$b$c"),
        ("$$SCONE::secret$$", "$$SCONE::secret$$"),
        ("$$SCONE::a:b$$/${TAG}", "$$SCONE::a:b$$/1.2"),
        ("$$SCONE:x", "$SCONE:x"),
    ],
)
@pytest.mark.parametrize("quote", ["'", ""], ids=["quoted", "plain"])
def test_a_variable_comes_to_its_text(tmp_path, text, expected, quote):
    project = loaded(tmp_path, f"command: {quote}{text}{quote}" if quote else f"command: >-\n      {text}")
    assert project.images["a"]["command"] == expected


def test_values_of_every_kind_may_come_from_the_environment(tmp_path):
    image = loaded(
        tmp_path, "{heap: '${HEAP}', binary-fs: '${YES}', dlopen: '${D:-2}', dir: ['/${TAG}', '/x'], env+: 'A=${TAG}'}"
    ).images
    found = image["a"]
    assert (found["heap"], found["binary-fs"], found["dlopen"]) == (2 << 30, True, 2)
    assert (found["dir"], found["env"]) == (("/1.2", "/x"), ("A=1.2",))


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("command: ${NOT_SET}", "NOT_SET is not set"),
        ("command: a${NOT_SET}${TAG}", "write ${NOT_SET:-default}"),
        ("command: $TAG", "begins no variable"),
        ("command: cost 5$", "$$ for a dollar sign"),
        ("command: '${TAG'", "begins no variable"),
        ("command: '${}'", "begins no variable"),
        ("command: '${9A}'", "begins no variable"),
        ("command: '${TAG-x}'", "begins no variable"),
        ("command: '${A:-${B}}'", "begins no variable"),
        ("command: '${TAG:?x}'", "begins no variable"),
        ("command: '${EMPTY}'", "not allowed"),
        ("command: '${SCONIFY_ROOT_KEY}'", "is a key"),
        ("command: '${SCONIFY_ROOT_KEY:-x}'", "is a key"),
        ("binary-fs: '${TAG}'", "true or false"),
        ("binary-fs: '${EMPTY}'", "true or false"),
        ("heap: '${TAG}'", "'${TAG}' is not allowed"),
        ("'${TAG}': x", "no option '${TAG}'"),
    ],
)
def test_what_can_not_be_is_refused_with_its_line(tmp_path, option, part):
    assert part in refused(tmp_path, option, SET | {"SCONIFY_ROOT_KEY": "5a" * 32})


@pytest.mark.parametrize("option", ["heap", "binary-fs", "dlopen", "dir", "env", "cas", "platform", "volume", "key-epoch"])
def test_no_error_shows_a_value_of_the_environment(tmp_path, option):
    for text in ("${SECRET}", "=${SECRET}", "x ${SECRET} ${NOT_SET}"):
        assert "hunter2" not in refused(tmp_path, f"{option}: '{text}'", {"SECRET": "=hunter2\0"})


def test_keys_names_and_the_head_of_the_file_stay_as_they_are_written(tmp_path):
    for text in (
        "project: ${TAG}\nimages: {a: {}}",
        "project: p\nimages: {'${TAG}': {}}",
        "project: p\nkey-epoch: ${TAG}\nimages: {a: {}}",
    ):
        path = tmp_path / "sconify.yaml"
        path.write_text(f"version: 1\n{text}\n")
        with pytest.raises(UsageError, match="TAG"):
            load_project(path, variables={"TAG": "1"})


def test_only_what_was_asked_for_is_recorded(tmp_path):
    project = loaded(tmp_path, "command: '${TAG} ${NOT_SET:-x} $$${EMPTY}'")
    assert project.variables == {"TAG": "1.2", "NOT_SET": None, "EMPTY": ""}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    st.lists(
        st.one_of(st.text(alphabet="ab {}:-'\"#", min_size=1), st.just("$"), st.sampled_from(sorted(SET))),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_stands_between_variables_comes_through(tmp_path, parts):
    """Text with every `$` doubled and names in braces comes to itself, with the names' values."""
    written = "".join("$$" if part == "$" else f"${{{part}}}" if part in SET else part for part in parts)
    expected = "".join(SET.get(part, part) for part in parts)
    quoted = "'" + f"x{written}x".replace("'", "''") + "'"
    assert loaded(tmp_path, f"command: {quoted}").images["a"]["command"] == f"x{expected}x"
