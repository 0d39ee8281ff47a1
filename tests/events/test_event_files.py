"""--events and --trace: opened before any work, whole whatever ends the run, and free of secrets and of control characters."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from build.small_image import ROOT_KEY, SECRET, write
from cli.commands import arguments, run, start, stop_at

from sconify_tasks.event_file import EventFile
from sconify_tasks.event_log import JsonLines
from sconify_tasks.events import Event, Noted, Progressed, StepFailed, StepFinished, StepStarted
from sconify_tasks.trace import ChromeTrace

KINDS = {kind.kind: kind for kind in Event.__subclasses__()}
PAGE = Path(__file__).parents[2] / "docs" / "events.md"
HOSTILE = "a\x1b[2J\n\u202e\udc80"


def written(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_page_documents_every_kind_with_every_field():
    documented = {row[0]: row[1] for row in re.findall(r"^\| `([a-z-]+)` \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)}
    expected = {name: set(kind.__struct_fields__) - {"image"} for name, kind in KINDS.items()}
    assert {name: set(re.findall(r"`([a-z_]+)`", text)) for name, text in documented.items()} == expected


def test_a_build_writes_its_events_and_a_trace_and_shows_no_secret(native, place):
    trace, events = place.folder / "trace.json", place.folder / "events.json"
    given = (
        f"--events={events}",
        f"--trace={trace}",
        "--explain",
        "--env=TOKEN=marker-of-env",
        "--command=/bin/prog marker-of-c",
    )
    assert run(place, arguments(native, place, *given)).code == 0
    found = written(events)
    assert {line["kind"] for line in found} >= {"plan", "explained", "step-started", "step-finished", "layer-delivered"}
    assert found[-1]["kind"] == "run-finished"
    assert found[-1]["code"] == 0
    for line in found:
        assert set(line) == {"v", "time", "kind"} | set(KINDS[line["kind"]].__struct_fields__)
    bars = [event for event in json.loads(trace.read_text()) if event["ph"] == "X"]
    assert {bar["name"] for bar in bars} == {line["step"] for line in found if line["kind"] == "step-finished"}
    assert {bar["tid"] for bar in bars} <= {event["tid"] for event in json.loads(trace.read_text()) if event["ph"] == "M"}
    (key,) = re.findall(r"fspf_key: ([0-9a-f]{64})", place.session.read_text())
    for secret in ("marker-of", SECRET.decode()[:20], key, ROOT_KEY):
        assert secret not in events.read_text() + trace.read_text()
    assert {path.stat().st_mode & 0o777 for path in (events, trace)} == {0o600}


@pytest.mark.parametrize("option", ["events", "trace"])
@pytest.mark.parametrize("file", ["-", "/nonexistent/x", "/"])
def test_a_file_that_can_not_be_written_is_a_usage_error_before_any_work(native, place, option, file):
    ended = run(place, arguments(native, place, f"--{option}={file}"))
    assert (ended.code, ended.stdout, len(ended.errors)) == (2, "", 1)
    assert f"--{option}={file}" in ended.stderr
    assert not place.home.exists()


@pytest.mark.parametrize("option", ["events", "trace"])
def test_a_file_that_holds_something_else_is_not_overwritten(native, place, option):
    held = place.folder / "sconify.yaml"
    held.write_text("version: 1\n")
    ended = run(place, arguments(native, place, f"--{option}={held}"))
    assert (ended.code, ended.stdout, len(ended.errors)) == (2, "", 1)
    assert "holds no events" in ended.stderr
    assert held.read_text() == "version: 1\n"


def test_both_can_not_go_to_one_file_and_each_may_be_written_again(native, place):
    ended = run(place, arguments(native, place, "--events=x", "--trace=./x"))
    assert (ended.code, len(ended.errors)) == (2, 1)
    for _ in range(2):
        ended = run(place, arguments(native, place, "--events=x", "--trace=y"))
        assert ended.code == 0, ended.stderr
    assert json.loads((place.folder / "x").read_text().splitlines()[0])
    assert json.loads((place.folder / "y").read_text())


def test_a_failed_run_leaves_both_files_whole(native, place):
    trace, events = place.folder / "trace.json", place.folder / "events.json"
    place.layout.write_bytes(b"a file stands where the layout should be")
    assert run(place, arguments(native, place, f"--events={events}", f"--trace={trace}")).code == 1
    found = written(events)
    assert [line["code"] for line in found if line["kind"] == "run-finished"] == [1]
    (failed,) = [line["step"] for line in found if line["kind"] == "step-failed"]
    (bar,) = [event for event in json.loads(trace.read_text()) if event.get("name") == failed]
    assert "failed" in bar["args"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_run_that_is_stopped_leaves_a_trace_that_reads(native, place, number):
    trace, events = place.folder / "trace.json", place.folder / "events.json"
    write(native / "app" / "big", b"protected " * 3_000_000)
    ended = stop_at(start(place, arguments(native, place, f"--events={events}", f"--trace={trace}")), "encrypt", number)
    assert ended.code in (130, -number)
    assert any(event["ph"] == "X" for event in json.loads(trace.read_text()))
    if number == signal.SIGINT:
        assert written(events)[-1]["code"] == 130


def test_the_disk_that_is_full_stops_the_file_and_not_the_build(native, place):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    ended = run(place, arguments(native, place, "--events=/dev/full"))
    assert ended.code == 0
    assert ended.stderr.count("the rest of the run is not written there") == 1


def test_hostile_names_stay_json_that_every_reader_takes(tmp_path):
    path = tmp_path / "events"
    log = JsonLines(EventFile(str(path), option="events", warn=pytest.fail), now=lambda: datetime(2025, 1, 1, tzinfo=UTC))
    log(Noted(image=HOSTILE, message=HOSTILE))
    log.close()
    text = path.read_text()
    assert text.count("\n") == 1
    assert all(char.isprintable() for char in text.rstrip("\n"))
    assert json.loads(text)["message"] == "a\x1b[2J\n\u202e\\udc80"


def test_a_trace_is_whole_after_every_event_and_has_a_lane_for_every_thread(tmp_path):
    path, thread = tmp_path / "trace", [1]
    trace = ChromeTrace(EventFile(str(path), option="trace", warn=pytest.fail), thread=lambda: thread[0])
    for lane, step in enumerate(("one", "two"), start=1):
        thread[0] = lane
        trace(StepStarted(image=HOSTILE, step=step))
        trace(Progressed(image=HOSTILE, step=step, done=5, total=10))
        json.loads(path.read_text())
    trace(StepFinished(image=HOSTILE, step="two", cached=False, seconds=1.0))
    json.loads(path.read_text())
    trace.close()
    trace(StepFailed(image=HOSTILE, step="one", message="late"))  # from a thread that outlives the run
    bars = {event["name"]: event for event in json.loads(path.read_text()) if event["ph"] == "X"}
    assert {bar["tid"] for bar in bars.values()} == {1, 2}
    assert [bar["args"].get("unfinished") for bar in bars.values()] == [None, True]
    assert sum(event["ph"] == "C" for event in json.loads(path.read_text())) == 2


def test_a_pipe_gets_each_event_as_it_happens(tmp_path):
    reading, writing = os.pipe()
    log = JsonLines(EventFile(f"/dev/fd/{writing}", option="events", warn=pytest.fail), now=lambda: datetime.now(UTC))
    log(Noted(message="now"))
    assert json.loads(os.read(reading, 1 << 16))["message"] == "now"
    log.close()
    os.close(reading)
    os.close(writing)
