"""What a person sees: live bars on a terminal that can show them, plain lines elsewhere, and a summary of what ran."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from build.small_image import convert, write
from cli.commands import BIN, TIMEOUT, arguments, run, variables

from sconify_dodo.machine_options import MACHINE_OPTIONS
from sconify_tasks.events import LayerDelivered, PlanMade, Progressed, RunFinished, StepFailed, StepFinished, StepStarted
from sconify_tasks.live import Live
from sconify_tasks.observers import screen_for
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.summary import Ran, Summary, critical_path, size

SEQUENCE = "\x1b["


def on_terminal(place, words, **more):
    """Run with stderr on a terminal of its own; return the code, stdout and everything that the terminal got."""
    ours, theirs = pty.openpty()
    env = variables(place, **{"TERM": "xterm", "COLUMNS": "100", **more})
    process = subprocess.Popen([BIN / words[0], *words[1:]], cwd=place.folder, env=env, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    got = b""
    try:
        while piece := os.read(ours, 1 << 16):
            got += piece
    except OSError:
        pass  # the other side is closed
    os.close(ours)
    assert process.stdout is not None
    out = process.stdout.read().decode()
    process.stdout.close()
    return process.wait(TIMEOUT), out, got.decode()


def test_a_terminal_shows_steps_and_gets_its_cursor_back(native, place):
    write(native / "app" / "big", b"protected " * 2_000_000)
    code, out, shown = on_terminal(place, arguments(native, place))
    assert code == 0
    assert out.startswith("ns-")
    assert SEQUENCE not in out
    assert "steps" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "critical path" in shown[shown.rindex("\x1b[?25h") :]


@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"COLUMNS": "30", "NO_COLOR": "1"}], ids=["dumb", "narrow"])
def test_a_terminal_that_can_not_show_bars_gets_plain_lines(native, place, more):
    code, _, shown = on_terminal(place, arguments(native, place), **more)
    assert code == 0
    assert SEQUENCE not in shown
    assert "encrypt done" in shown


@pytest.mark.parametrize(("words", "more"), [(("--no-color",), {}), ((), {"NO_COLOR": "1"})], ids=["option", "variable"])
def test_without_colours_the_bars_have_none(native, place, words, more):
    _, _, shown = on_terminal(place, arguments(native, place, *words), **more)
    assert not [code for code in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[90m", "\x1b[91m") if code in shown]


def test_a_run_that_finds_nothing_to_do_shows_and_loads_nothing(native, place):
    assert run(place, arguments(native, place)).code == 0
    code, out, shown = on_terminal(place, arguments(native, place))
    assert (code, shown) == (0, "")
    assert out.startswith("ns-")
    words = arguments(native, place)[1:]
    program = f"import sys\nfrom sconify_dodo.cli import main\nsys.argv[1:] = {words!r}\nmain()\nprint([n for n in sys.modules if n.split('.')[0] in ('rich', 'docker', 'twisted')])"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=place.folder, env=variables(place), capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("option", MACHINE_OPTIONS, ids=lambda option: option["long"])
def test_both_commands_take_the_same_machine_options(option):
    known = BY_NAME[option["long"]]
    assert (option["type"] is bool) == known.is_flag
    assert not known.yaml
    assert known.help.startswith(option["help"])


def summed(*events):
    said: list[str] = []
    now = [0.0]
    summary = Summary(say=said.append, clock=lambda: now[0])
    for event in events:
        if isinstance(event, (int, float)):
            now[0] += event
        else:
            summary(event)
    return said


def test_a_run_is_summed_up_in_two_lines():
    assert summed(
        PlanMade(image="a", steps=5, stale=("x", "y", "z"), needs={"x": (), "y": ("x",), "z": ("y",)}),
        StepStarted(image="a", step="x"),
        2,
        StepFinished(image="a", step="x", cached=False, seconds=2, counts={"bytes encrypted": 1_500_000, "files encrypted": 1}),
        StepFinished(image="a", step="y", cached=True, seconds=0),
        StepStarted(image="a", step="z"),
        1,
        StepFinished(image="a", step="z", cached=False, seconds=1),
        LayerDelivered(image="a", step="z", diff_id="sha256:0", size=1, reused=True),
        LayerDelivered(image="a", step="z", diff_id="sha256:1", size=1, reused=False),
        RunFinished(code=0, seconds=3.25),
    ) == [
        "2 steps ran, 3 cached, 1.5 MB encrypted, 1 file encrypted, 1 of 2 layers reused, 3.2 s",
        "critical path 3.0 s: x > z",
    ]
    assert summed(RunFinished(code=0, seconds=1)) == []


def test_a_run_that_ends_early_says_what_was_not_run():
    assert (
        summed(
            PlanMade(image="a", steps=5, stale=("x", "y", "z"), needs={"x": (), "y": ("x",), "z": ("y",)}),
            StepStarted(image="a", step="x"),
            StepFinished(image="a", step="x", cached=False, seconds=2),
            StepStarted(image="a", step="y"),
            StepFailed(image="a", step="y", message="no"),
            RunFinished(code=1, seconds=3.25),
        )[0]
        == "1 step ran, 2 cached, 1 failed, 1 not run, 3.2 s"
    )


def test_the_critical_path_is_the_longest_chain_also_through_images_and_steps_that_were_cut_off():
    ran = {("a", "x"): Ran(begun=0, ended=5), ("a", "y"): Ran(begun=0, ended=6), ("b", "z"): Ran(begun=7, ended=9)}
    needs = {("b", "z"): (("b", "cut"),), ("b", "cut"): (("a", "x"),)}
    assert critical_path(ran, needs) == (7, (("a", "x"), ("b", "z")))
    assert critical_path({}, {}) == (0.0, ())


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (10**15, "1000.0 TB")])
def test_bytes_are_shown_in_powers_of_a_thousand(number, text):
    assert size(number) == text


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self):
        return True


def test_a_running_step_shows_how_many_bytes_it_has_done_and_how_fast(native, place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    write(native / "app" / "big", b"protected " * 2_000_000)
    terminal = Terminal()
    screen = screen_for(terminal, {"TERM": "xterm"})
    assert isinstance(screen, Live)

    def show(event):
        screen(event)
        if isinstance(event, Progressed):
            screen._progress.refresh()  # as it is from time to time

    assert convert(native, place, react=show).code == 0
    screen.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.strip() for line in re.split(r"[\r\n]+", shown)]
    rate = r"[0-9]+\.[0-9] [kMGT]?B/s +0:00:[0-9]{2}"
    assert any(re.fullmatch(rf"small: encrypt +\S+ +20\.1 MB/20\.1 MB {rate}", line) for line in lines), lines
    assert any(re.fullmatch(rf"small: files +20\.1 MB {rate}", line) for line in lines), "its total is not known before"
