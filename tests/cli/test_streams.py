"""stdout carries results, stderr everything else, and neither carries a secret."""

from __future__ import annotations

import re

import pytest
from build.small_image import SECRET, Place
from cli.commands import arguments, run, temporary

from sconify_tasks.command_line import format_help
from sconify_tasks.option_checks import NOT_BUILT
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.option_types import Value

RESULT = re.compile(r"ns-[0-9a-f]{16}/out-small\n\Z")
MARKER = "marker-of-a-secret"


def test_stdout_carries_the_sessions_full_name_and_nothing_else(native, place):
    ended = run(place, arguments(native, place))
    assert ended.code == 0
    assert RESULT.match(ended.stdout)
    again = run(place, arguments(native, place))
    assert (again.code, again.stdout, again.stderr) == (0, ended.stdout, "")


def test_a_given_name_and_namespace_are_what_is_printed(native, place):
    ended = run(place, arguments(native, place, "--name=mine", "--namespace=team", "--create-namespace"))
    assert (ended.code, ended.stdout) == (0, "team/mine\n")
    assert "name: team/mine" in place.session.read_text()


def test_progress_goes_to_stderr_without_terminal_sequences(native, place):
    ended = run(place, arguments(native, place))
    assert {"inspect", "encrypt done", "verify done"} <= {
        re.sub(r" [0-9.]+ s$", "", line) for line in ended.stderr.splitlines()
    }
    assert "\x1b" not in ended.stderr


def test_an_unquoted_commands_words_are_warned_about_and_ignored(native, place):
    ended = run(place, [*arguments(native, place, "--command=/bin/prog"), "stray", "words"])
    assert ended.code == 0
    assert "Warning: ignored 2 words that belong to no option" in ended.stderr
    assert RESULT.match(ended.stdout)


def test_no_arguments_and_help_print_the_same_help(place):
    for words in (["sconify_image"], ["sconify_image", "--help"], ["sconify_image", "-h", "--to=x"]):
        assert run(place, words).stdout == format_help()
    assert not place.home.exists()


def everything_that_was_shown(native, place, *more: str) -> str:
    ended = run(place, arguments(native, place, *more))
    assert ended.code == 0
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("switch", ["-v", "-x", "--verbose", "--debug"])
def test_nothing_that_is_shown_holds_a_secret(native, place, switch):
    shown = everything_that_was_shown(
        native, place, switch, f"--env=TOKEN={MARKER}", "--env", f"OTHER={MARKER}", f"--command=/bin/prog {MARKER}"
    )
    keys = re.findall(r"fspf_key: ([0-9a-f]{64})", place.session.read_text())
    assert len(keys) == 1
    for secret in (MARKER, "marker-of-the-native-environment", keys[0]):
        assert secret not in shown


def test_the_session_file_is_complete_and_private(native, place):
    run(place, arguments(native, place, "-v", f"--env=TOKEN={MARKER}", f"--command=/bin/prog {MARKER}"))
    text = place.session.read_text()
    assert f"/bin/prog {MARKER}" in text
    assert f"TOKEN: {MARKER}" in text
    assert "marker-of-the-native-environment" in text
    assert place.session.stat().st_mode & 0o777 == 0o600


def holders(place: Place, marker: bytes) -> set[str]:
    """Every file of ours that holds the marker, by its name below the place; blobs that nobody else may read as `private`."""
    found = set()
    for path in place.folder.rglob("*"):
        if path.is_file() and marker in path.read_bytes():
            private = "store" in path.parts and not path.stat().st_mode & 0o077
            found.add("private" if private else str(path.relative_to(place.folder)))
    return found


def test_secrets_lie_where_they_belong_and_nowhere_else(native, place):
    temporary(place)
    command = f"--command=/bin/prog {MARKER}-command"
    run(place, arguments(native, place, "-v", f"--env=TOKEN={MARKER}-env", command))
    assert holders(place, SECRET[:30]) == set()
    session = {"build-resources/session.yml", "private"}
    for marker in (f"{MARKER}-env", f"{MARKER}-command", "marker-of-the-native-environment"):
        assert holders(place, marker.encode()) == session
    (key,) = re.findall(r"fspf_key: ([0-9a-f]{64})", place.session.read_text())
    assert holders(place, key.encode()) == session
    assert holders(place, bytes.fromhex(key)) == set()
    assert list(temporary(place).iterdir()) == []


@pytest.mark.parametrize("folder", [".cache/sconify", ".cache/sconify/store", ".cache/sconify/actions", ".local/state/sconify"])
def test_folders_with_secrets_are_their_owners_alone(native, place, folder):
    run(place, arguments(native, place))
    assert (place.home / folder).stat().st_mode & 0o077 == 0


def value_of(name: str) -> Value:
    option = BY_NAME[name]
    samples = {
        "volume": "data:/data",
        "k8s-helm-workload-type": "deployment",
        "k8s-helm-expose": "8080",
        "k8s-helm-volume": "data:/data",
        "k8s-helm-set": "a=b",
        "azure-attestation": "https://maa.example",
        "fs-dir": "/app",
        "fs-file": "/app/secret",
    }
    return None if option.is_flag else samples.get(name, "some/file")


def test_options_that_are_not_built_are_refused_before_anything_is_made(native, place):
    for name in sorted(NOT_BUILT):
        value = value_of(name)
        word = f"--{name}" if value is None else f"--{name}={value}"
        ended = run_here(native, place, word)
        assert ended.code == 2, word
        assert f"--{name}" in ended.stderr, word
        assert len(ended.errors) == 1, ended.stderr
    assert not place.home.exists()


def run_here(native, place, *more: str):
    """In this process, for many small runs."""
    import io

    from cli.commands import Ended, variables

    from sconify_dodo import cli

    out, err = io.StringIO(), io.StringIO()
    words = [word for word in arguments(native, place)[1:] if not word.startswith("--dir") or "fs" not in "".join(more)]
    code = cli.run([*words, *more], variables=variables(place), folder=place.folder, stdout=out, stderr=err)
    return Ended(code=code, stdout=out.getvalue(), stderr=err.getvalue())


def test_debug_shows_the_command_that_was_given(native, place):
    ended = run(place, arguments(native, place, "-x", "--no-color"))
    assert any(line.startswith("+ sconify_image --from=") for line in ended.stderr.splitlines())


def test_colours_are_for_terminals_and_can_be_turned_off(native, place):
    import os
    import pty

    from cli.commands import BIN, variables

    def on_a_terminal(*more: str) -> bytes:
        main, other = pty.openpty()
        import subprocess

        process = subprocess.Popen(
            [BIN / "sconify_image", *arguments(native, place, *more)[1:]],
            cwd=place.folder,
            env=variables(place),
            stdout=subprocess.DEVNULL,
            stderr=other,
        )
        os.close(other)
        said = b""
        try:
            while block := os.read(main, 1 << 16):
                said += block
        except OSError:
            pass  # the other end is closed
        os.close(main)
        assert process.wait() == 0
        return said

    assert b"\x1b[" in on_a_terminal("--heap=2G")
    assert b"\x1b[" not in on_a_terminal("--heap=3G", "--no-color")
