"""Commands: words and text, shells unwrapped where no shell is needed, and the environment."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.policy.command import join, split
from sconify_tasks.policy.environment import LD_LIBRARY_PATH, service_environment
from sconify_tasks.policy.shell_form import native_command

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["@@1", "a'@@'b", "@@@", "\\@\\@"]
)


@given(st.lists(words))
def test_joined_words_split_into_the_same_words(found):
    assert split(join(found)) == tuple(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [("python3 -B /app/x.py", ("python3", "-B", "/app/x.py")), ("a 'b c' \"d e\" f\\ g", ("a", "b c", "d e", "f g")), ("", ())],
)
def test_text_is_split_as_a_shell_quotes(text, found):
    assert split(text) == found
    assert split(list(found)) == found


@pytest.mark.parametrize(
    ("command", "part"),
    [("a @@1", "not built yet"), (["a", "@@1"], "not built yet"), ("a\0", "NUL"), ("a 'b", "split"), ("a" * 131073, "longer")],
)
def test_a_command_that_can_not_be_taken_is_refused(command, part):
    with pytest.raises(UsageError, match=part):
        split(command)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "found"),
    [
        ((), ("/bin/sh", "-c", "python3 -B /app/rest_api.py"), ("python3", "-B", "/app/rest_api.py")),
        (("/bin/sh", "-c", "exec python3 'my app.py' \"a b\""), (), ("python3", "my app.py", "a b")),
        (("/bin/bash", "-c", "  a\tb=c  "), (), ("a", "b=c")),
        (("/bin/sh", "-c", "a b"), ("ignored",), ("a", "b")),
        (("python3", "-m"), ("flask", "run"), ("python3", "-m", "flask", "run")),
        (("docker-entrypoint.sh",), ("$HOME",), ("docker-entrypoint.sh", "$HOME")),
        (("/bin/sh", "/start.sh"), (), ("/bin/sh", "/start.sh")),
        (("/bin/sh",), (), ("/bin/sh",)),
    ],
)
def test_the_native_command_is_the_words_of_one_program(entrypoint, cmd, found):
    assert native_command(entrypoint, cmd) == found


NEEDS_A_SHELL = [
    *(
        "a $HOME",
        "a && b",
        "a; b",
        "a | b",
        "a > b",
        "a `b`",
        "a *",
        "a ~",
        "a # b",
        "A=1 b",
        "cd /app",
        "exec",
        "exec -a x y",
        "",
    ),
    *(
        "a {b,c}",
        'a "$b"',
        "a \\n",
        "a\nb",
        "if a",
        ". a",
        "! a",
        "a 'b",
        "a ?",
        "a [b]",
        "(a)",
        "a &",
        "exec cd /",
        "a $(b)",
        "export A=b",
    ),
]


@pytest.mark.parametrize("text", NEEDS_A_SHELL)
def test_a_text_that_needs_a_shell_asks_for_a_command(text):
    with pytest.raises(UsageError) as caught:
        native_command((), ("/bin/sh", "-c", text))
    assert "--command" in caught.value.hint


def test_an_image_that_starts_nothing_asks_for_a_command():
    for entrypoint in ((), ("",)):
        with pytest.raises(UsageError, match="neither ENTRYPOINT nor CMD"):
            native_command(entrypoint, ())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="ab'\" \t=$~*-.\\,:@%+", min_size=1, max_size=6), min_size=1, max_size=4))
def test_an_unwrapped_text_gives_the_words_that_the_shell_gives(parts):
    text = "printf '%s\\n' " + " ".join(parts)
    try:
        found = native_command((), ("/bin/sh", "-c", text.replace("'%s\\n'", "fmt")))
    except UsageError:
        return
    done = subprocess.run(["/bin/sh", "-c", text.replace("printf", "printf --", 1)], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(word + "\n" for word in found[2:]) or not found[2:]


def test_the_environment_is_the_images_then_what_is_added():
    found = service_environment(["A=1", "B=2", "NL=x\ny", "BARE", "EQ=a=b"], ["B=3", "C="])
    assert found == {"LD_LIBRARY_PATH": LD_LIBRARY_PATH, "A": "1", "B": "3", "NL": "x\ny", "BARE": "", "EQ": "a=b", "C": ""}
    assert next(iter(found)) == "LD_LIBRARY_PATH"


def test_a_library_path_that_was_set_is_left_alone():
    assert service_environment(["LD_LIBRARY_PATH="]) == {"LD_LIBRARY_PATH": ""}
    assert service_environment([], ["LD_LIBRARY_PATH=/x"]) == {"LD_LIBRARY_PATH": "/x"}
    assert service_environment([], generate_ld_library_path=False) == {}


def test_the_native_environment_can_be_left_out():
    assert service_environment(["A=1"], ["B=2"], copy_native=False, generate_ld_library_path=False) == {"B": "2"}


@pytest.mark.parametrize("entry", ["=x", "", "A=\0"])
def test_an_entry_without_a_name_or_with_nul_is_refused(entry):
    with pytest.raises(UsageError, match="native image's environment"):
        service_environment([entry])
    with pytest.raises(UsageError, match="--env"):
        service_environment([], [entry])
