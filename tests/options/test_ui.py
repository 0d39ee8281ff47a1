"""Events become plain lines on the given stream; nothing of an image reaches the terminal as a control sequence."""

import io

import pytest

from sconify_tasks.errors import UsageError
from sconify_tasks.events import Detail, Noted, RunFinished, StepFailed, StepFinished, StepStarted, Stream, Warned
from sconify_tasks.ui import lines


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(*events, stream=None, **how):
    stream = stream or io.StringIO()
    events_out = Stream(subscribers=[lines(stream, **how)])
    for event in events:
        events_out.emit(event)
    return stream.getvalue()


def test_a_build_reads_as_plain_lines():
    text = shown(
        StepStarted(image="flask", step="encrypt", why="/app/a.py changed"),
        StepFinished(image="flask", step="encrypt", cached=False, seconds=1.25, note="1 file"),
        StepFinished(image="flask", step="sign", cached=True, seconds=0.0),
        Warned(image="flask", message="health check dropped"),
        Noted(message="engine: docker"),
        StepFailed(image="flask", step="upload", message="no CAS"),
        Detail(message="name: x"),
    )
    assert text == (
        "flask: encrypt\n"
        "flask: encrypt done 1.2 s, 1 file\n"
        "Warning: flask: health check dropped\n"
        "engine: docker\n"
        "Error: flask: upload: no CAS\n"
    )


def test_verbose_shows_reasons_cached_steps_and_details():
    text = shown(
        StepStarted(step="encrypt", why="first run"),
        StepFinished(step="sign", cached=True, seconds=0.0),
        Detail(message="a: 1\nb: 2"),
        verbose=True,
    )
    assert text == "encrypt (first run)\nsign cached\na: 1\nb: 2\n"


def test_colours_are_for_terminals_and_can_be_switched_off():
    event = Warned(message="x")
    assert "\x1b" in shown(event, stream=Terminal())
    assert "\x1b" not in shown(event, stream=Terminal(), no_color=True)
    assert "\x1b" not in shown(event)


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nError: b", "a\rb", "a\u202eb", "a\x9bb", "a\udc80b"])
def test_control_characters_of_an_image_are_shown_and_not_obeyed(text):
    line = shown(Noted(image=text, message=text), StepFinished(step="s", cached=False, seconds=0.0, note=text))
    assert line.count("\n") == 2
    assert all(char.isprintable() for char in line.replace("\n", ""))


def test_an_error_is_one_line_with_its_hint():
    stream = io.StringIO()
    lines(stream).error(UsageError("--heap=x is not allowed", hint="give bytes"))
    lines(stream).error(UsageError("gone"))
    lines(stream).warn("old")
    assert stream.getvalue() == "Error: --heap=x is not allowed (give bytes)\nError: gone\nWarning: old\n"


def test_commands_are_printed_only_when_asked_for():
    stream = io.StringIO()
    lines(stream).command(("docker", "load"))
    lines(stream, commands=True).command(("docker", "load", "a b"))
    assert stream.getvalue() == "+ docker load 'a b'\n"


def test_standard_output_is_never_touched(capsys):
    shown(Noted(message="x"), Detail(message="y"), verbose=True)
    assert capsys.readouterr().out == ""


def test_who_works_on_after_the_end_of_a_run_is_not_heard():
    heard = []
    events = Stream(subscribers=[heard.append])
    events.emit(RunFinished(code=130, seconds=1.0))
    events.emit(StepFailed(image="", step="libraries", message="the scratch folder is gone"))
    assert [type(event) for event in heard] == [RunFinished]


def test_of_an_interrupted_run_only_its_end_is_heard():
    heard = []
    events = Stream(subscribers=[heard.append])
    events.interrupted()
    events.emit(StepFailed(image="", step="libraries", message="the scratch folder is gone"))
    events.emit(RunFinished(code=130, seconds=1.0))
    assert [type(event) for event in heard] == [RunFinished]
