"""A run as a Chrome trace (chrome://tracing, ui.perfetto.dev): a lane a worker, a bar a step, bytes as counters.

Format: "Trace Event Format" of the Chromium project, the JSON array form. Where the file can be written over, it is a
whole JSON document after every event, whatever ends the run.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from sconify_tasks.event_file import EventFile
from sconify_tasks.event_log import plain
from sconify_tasks.events import (
    Event,
    LayerDelivered,
    Progressed,
    RunFinished,
    StepFailed,
    StepFinished,
    StepStarted,
    Warned,
)

_PROCESS = 1
_MICRO = 1_000_000


class ChromeTrace:
    """A subscriber that writes a trace. An event belongs to the lane of the thread that emits it."""

    def __init__(
        self,
        file: EventFile,
        *,
        clock: Callable[[], float] = time.monotonic,
        thread: Callable[[], int] = threading.get_ident,
    ) -> None:
        self._file, self._clock, self._thread = file, clock, thread
        self._begun = time.monotonic()
        self._lanes: dict[int, int] = {}
        self._running: dict[tuple[str, str], tuple[float, int, str]] = {}
        self._first = True
        self._write({"ph": "M", "name": "process_name", "tid": 0, "args": {"name": "sconify"}})

    def __call__(self, event: Event) -> None:
        """Write what belongs into a trace."""
        if isinstance(event, StepStarted):
            self._running[event.image, event.step] = (self._now(), self._lane(), event.why)
        elif isinstance(event, StepFinished) and not event.cached:
            self._end(event.image, event.step, {"counts": event.counts})
        elif isinstance(event, StepFailed):
            self._end(event.image, event.step, {"failed": event.message})
        elif isinstance(event, Progressed):
            name = f"{_named(event.image, event.step)} bytes"
            self._write({"ph": "C", "name": name, "tid": 0, "ts": self._now(), "args": {"bytes": event.done}})
        elif isinstance(event, LayerDelivered):
            self._instant("layer reused" if event.reused else "layer delivered", {"diff_id": event.diff_id, "size": event.size})
        elif isinstance(event, Warned):
            self._instant("warning", {"message": event.message})
        elif isinstance(event, RunFinished):
            self._instant("run finished", {"code": event.code})

    def close(self) -> None:
        """End the bars of steps that never ended, and the document."""
        for image, step in list(self._running):
            self._end(image, step, {"unfinished": True})
        self._file.close(last="\n]\n")

    def _end(self, image: str, step: str, more: dict[str, Any]) -> None:
        found = self._running.pop((image, step), None)
        if found is not None:
            begun, lane, why = found
            args = {"image": image, "why": why, **more}
            took = self._now() - begun
            self._write(
                {"ph": "X", "cat": "step", "name": _named(image, step), "ts": begun, "dur": took, "tid": lane, "args": args}
            )

    def _instant(self, name: str, args: dict[str, Any]) -> None:
        self._write({"ph": "i", "s": "t", "name": name, "ts": self._now(), "tid": self._lane(), "args": args})

    def _lane(self) -> int:
        thread = self._thread()
        if thread not in self._lanes:
            lane = self._lanes[thread] = len(self._lanes) + 1
            self._write({"ph": "M", "name": "thread_name", "tid": lane, "args": {"name": f"worker {lane}"}})
        return self._lanes[thread]

    def _now(self) -> int:
        """Microseconds since the run began."""
        return int((self._clock() - self._begun) * _MICRO)

    def _write(self, event: dict[str, Any]) -> None:
        text = json.dumps(plain({"pid": _PROCESS, **event}), separators=(",", ":"))
        start, self._first = "[\n" if self._first else ",\n", False
        self._file.write(start + text, then="\n]\n" if self._file.seekable else "")


def _named(image: str, step: str) -> str:
    return f"{image}:{step}" if image else step
