"""Who listens to a run: the screen, and what --events, --trace and --explain ask for. Both front doors use it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO, TypeAlias

from sconify_tasks.ending import results_go_out
from sconify_tasks.errors import Interrupted, SconifyError, UsageError
from sconify_tasks.events import RunFinished, Stream
from sconify_tasks.summary import Summary
from sconify_tasks.ui import Lines, TextStream, lines

if TYPE_CHECKING:
    from sconify_tasks.event_log import JsonLines
    from sconify_tasks.live import Live
    from sconify_tasks.trace import ChromeTrace

Screen: TypeAlias = "Lines | Live"
_INTERNAL = 1


@dataclass(slots=True, kw_only=True)
class Run:
    """A run being observed: where its events go, the exit code that it comes to, and the lines that stdout gets at its end."""

    stream: Stream
    code: int = 0
    results: list[str] = field(default_factory=list)


def screen_for(
    stream: TextStream, variables: Mapping[str, str], *, no_color: bool = False, verbose: bool = False, commands: bool = False
) -> Screen:
    """Live progress on a terminal that can show it, plain lines everywhere else. NO_COLOR is honoured."""
    plain = no_color or bool(variables.get("NO_COLOR"))
    printed = lines(stream, no_color=plain or variables.get("TERM") == "dumb", verbose=verbose, commands=commands)
    # Commands are printed to be read and copied: nothing moves below them.
    if commands or not stream.isatty():
        return printed
    from sconify_tasks.live import Live, fits

    return Live(lines=printed, no_color=plain) if fits(stream, variables) else printed


@contextmanager
def observed(screen: Screen, *, stdout: TextIO, events: str = "", trace: str = "") -> Iterator[Run]:
    """Open what was asked for, say at the end how the run ended, and close everything, whatever ended it.

    The results are written when the screen stands still.

    Raises UsageError for a file that can't be written, before any work is done.
    """
    begun = time.monotonic()
    with _closing(screen, events=events, trace=trace) as run:
        run.stream.subscribers[:0] = [screen, Summary(say=screen.say, clock=run.stream.clock)]
        try:
            yield run
        except SconifyError as error:
            run.code = error.exit_code
            raise
        except KeyboardInterrupt:
            run.code = Interrupted.exit_code
            raise
        except BaseException:
            run.code = _INTERNAL
            raise
        finally:
            run.stream.emit(RunFinished(code=run.code, seconds=time.monotonic() - begun))
    results_go_out()
    stdout.writelines(f"{line}\n" for line in run.results)
    stdout.flush()


@contextmanager
def _closing(screen: Screen, *, events: str, trace: str) -> Iterator[Run]:
    if events and trace and os.path.realpath(events) == os.path.realpath(trace):
        raise UsageError(f"--events and --trace are both {events}", hint="give each a file of its own")
    opened: list[JsonLines | ChromeTrace] = []
    stream = Stream()
    try:
        if events:
            from datetime import UTC, datetime, timedelta

            from sconify_tasks.event_file import EventFile
            from sconify_tasks.event_log import JsonLines

            def happened() -> datetime:
                return datetime.now(UTC) - timedelta(seconds=time.monotonic() - stream.clock())

            opened.append(JsonLines(EventFile(events, option="events", warn=screen.warn), now=happened))
        if trace:
            from sconify_tasks.event_file import EventFile
            from sconify_tasks.trace import ChromeTrace

            opened.append(ChromeTrace(EventFile(trace, option="trace", warn=screen.warn), clock=stream.clock))
        stream.subscribers += opened
        yield Run(stream=stream)
    finally:
        for subscriber in opened:
            subscriber.close()
        screen.close()
