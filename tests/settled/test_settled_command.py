"""`sconify_image` started again with the same words: nothing is read of them, and whatever would change something is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from build.small_image import Place, snapshot, write
from cli.commands import Ended, arguments
from settled.watched import MODULES, planned, run_watched


def start(place: Place, native: Path, *words: str, folder: Path | None = None, **more: str) -> Ended:
    """`sconify_image`, which ends well."""
    modules = ("doit", "sconify_tasks.command_line", *MODULES)
    hook = place.folder.with_name("hook")
    ended = run_watched(place, arguments(native, place, *words), hook=hook, modules=modules, folder=folder, more=more)
    assert ended.code == 0, ended.stderr
    return ended


def settle(place: Place, native: Path, *words: str) -> Ended:
    """Run until there is nothing to do: what was just written is too new for the first run."""
    for _ in range(3):
        ended = start(place, native, *words)
        if not planned(ended):
            return ended
    raise AssertionError("it does not settle")


def test_a_second_run_reads_no_option_makes_no_plan_and_writes_nothing(native: Path, place: Place):
    first = start(place, native)
    settle(place, native)
    before = snapshot(place.folder, native)
    again = start(place, native)
    assert (again.stdout, again.stderr) == (first.stdout, "imported: \n")
    assert snapshot(place.folder, native) == before

    assert planned(start(place, native, "--env=A=1")), "other words are another build"
    below = place.folder / "below"
    below.mkdir()
    assert planned(start(place, native, folder=below)), "another folder has other build resources"
    assert planned(start(place, native, SOURCE_DATE_EPOCH="1"))
    for asking in ("--verbose", "--explain"):
        for _ in range(2):
            assert planned(start(place, native, asking)), "who wants to see a plan is shown one"


@pytest.mark.parametrize("change", ["source", "session", "layout", "record"])
def test_what_changes_is_noticed_and_mended(native: Path, place: Place, change: str):
    settle(place, native)
    session = place.session.read_text()
    if change == "source":
        write(native / "app" / "secret", b"changed")
    elif change == "session":
        place.session.write_text(session.replace("mrenclaves", "mrenclavet"))
    elif change == "layout":
        shutil.rmtree(place.layout)
    else:
        for record in (place.cache / "settled").iterdir():
            record.write_bytes(record.read_bytes().replace(b"oci:", b"OCI:"))
    assert planned(start(place, native))
    assert place.layers()
    assert change == "source" or place.session.read_text() == session
    assert not planned(settle(place, native))


def test_a_warning_is_said_again(native: Path, place: Place):
    words = ("stray", "--disable-session-security-attestation")
    first = start(place, native, *words)
    again = settle(place, native, *words)
    said = [line for line in first.stderr.splitlines() if line.startswith("Warning:")]
    assert len(said) > 1
    assert [line for line in again.stderr.splitlines() if line.startswith("Warning:")] == said


def test_places_and_keys_that_the_words_name_are_used(native: Path, place: Place, tmp_path: Path):
    key = tmp_path / "key"
    key.write_text("7c" * 32)
    key.chmod(0o600)
    words = (f"--cache={tmp_path / 'cache'}", "--state", str(tmp_path / "state"), "--root-key=" + str(key))
    hidden = {"SCONIFY_ROOT_KEY": ""}
    first = start(place, native, *words, **hidden)
    assert len(list((tmp_path / "cache" / "settled").iterdir())) == 1
    runs = [start(place, native, *words, **hidden) for _ in range(2)]
    assert not planned(runs[-1])
    assert runs[-1].stdout == first.stdout
    key.write_text("7d" * 32)
    other = start(place, native, *words, **hidden)
    assert planned(other)
    assert other.stdout != first.stdout, "the namespace is another key's"
