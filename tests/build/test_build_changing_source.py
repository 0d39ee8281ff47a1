"""The native image changes while it is converted: no record may then claim to know what it does not."""

from __future__ import annotations

import os

import pytest
from build.small_image import SECRET, convert

from sconify_tasks.events import StepFinished

CHANGED = SECRET.replace(b"4f1d7c", b"00beef")


def overwrite(native, path: str, content: bytes) -> None:
    """Same length, same inode, as an editor that writes in place."""
    with (native / path).open("r+b") as file:
        file.write(content)
    os.utime(native / path, (1_700_000_000, 1_700_000_000))


def after(step: str, then):
    done = []

    def react(event) -> None:
        if isinstance(event, StepFinished) and event.step == step and not done:
            done.append(event)
            then()

    return react


@pytest.mark.parametrize("step", ["inspect", "binary", "files", "libraries"])
@pytest.mark.parametrize(("path", "was", "new"), [("app/secret", SECRET, CHANGED), ("plain/readme", b"anybody", b"nobody!")])
def test_a_file_that_changes_between_two_steps_and_back_leaves_no_wrong_record(  # noqa: PLR0917
    native, place, tmp_path, step, path, was, new
):
    changed = convert(native, place, react=after(step, lambda: overwrite(native, path, new)))
    assert changed.code == 1
    assert "changed while it was read" in " ".join(changed.failures.values())
    overwrite(native, path, was)
    assert convert(native, place).code == 0
    clean = place.beside(tmp_path / "clean")
    assert convert(native, clean).code == 0
    assert place.image_digest() == clean.image_digest()


def test_a_file_that_grows_while_it_is_read_is_named(native, place):
    def grow() -> None:
        with (native / "app" / "secret").open("ab") as file:
            file.write(b"more")

    outcome = convert(native, place, react=after("files", grow))
    assert outcome.code == 1
    assert "/app/secret" in " ".join(outcome.failures.values())
    assert convert(native, place).code == 0


def test_a_file_that_disappears_is_named(native, place):
    outcome = convert(native, place, react=after("files", (native / "app" / "secret").unlink))
    assert outcome.code == 1
    assert "/app" in " ".join(outcome.failures.values())
    assert not (place.layout / "index.json").exists()
