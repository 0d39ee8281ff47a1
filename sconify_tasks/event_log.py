"""Events as JSON lines, for machines (docs/events.md). Each line is written whole and flushed as the event happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from sconify_tasks.event_file import EventFile
from sconify_tasks.events import Event

VERSION: Final = 1


class JsonLines:
    """A subscriber that writes each event as one JSON object on one line. `now` is the wall clock."""

    def __init__(self, file: EventFile, *, now: Callable[[], datetime]) -> None:
        self._file, self._now = file, now

    def __call__(self, event: Event) -> None:
        """Write the event."""
        self._file.write(json.dumps(as_json(event, self._now()), separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def as_json(event: Event, at: datetime) -> dict[str, Any]:
    """Return the object of an event: version, time (RFC 3339), kind, and the fields of its class."""
    body = {name: plain(getattr(event, name)) for name in event.__struct_fields__}
    return {"v": VERSION, "time": at.isoformat(timespec="milliseconds"), "kind": event.kind, **body}


def plain(value: object) -> Any:
    """The value as JSON that every reader takes: names that are not Unicode have their odd bytes written out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value
