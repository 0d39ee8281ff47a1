"""Live progress on a terminal, with rich: how many steps are done, and a line a running step with bytes and rate.

Lines that stay scroll above. rich is loaded when the first step runs, so that a run without one never pays for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sconify_tasks.errors import SconifyError
from sconify_tasks.events import Event, PlanMade, Progressed, RunFinished, StepFailed, StepFinished, StepStarted
from sconify_tasks.ui import Lines, TextStream, clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_NARROWEST = 50
_PER_SECOND = 8
_LONGEST_NAME = 32
_MOST_LINES = 12


def fits(stream: TextStream, variables: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that can move its cursor and is wide enough."""
    if not stream.isatty() or variables.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return False
    import shutil

    return shutil.get_terminal_size().columns >= _NARROWEST


@dataclass(slots=True, kw_only=True)
class Live:
    """A subscriber with the same doors as `Lines`. `close` must be called: it gives the terminal back."""

    lines: Lines
    no_color: bool = False
    _progress: Progress | None = None
    _steps: TaskID | None = None
    _planned: int = 0
    _running: dict[tuple[str, str], TaskID] = field(default_factory=dict)
    _over: bool = False

    def __call__(self, event: Event) -> None:
        """Move the bars, and write the line that stays, if any."""
        if isinstance(event, PlanMade):
            self._planned += len(event.stale)
        elif isinstance(event, StepStarted) and not self._over:
            self._start(event)
        elif isinstance(event, Progressed):
            self._move(event)
        elif isinstance(event, StepFinished | StepFailed):
            self._end(event.image, event.step)
        elif isinstance(event, RunFinished):
            self.close()
        if not isinstance(event, StepStarted) or self.lines.verbose:
            self._through()(event)

    def error(self, error: SconifyError) -> None:
        """As `Lines.error`."""
        self._through().error(error)

    def warn(self, message: str) -> None:
        """As `Lines.warn`."""
        self._through().warn(message)

    def command(self, words: tuple[str, ...]) -> None:
        """As `Lines.command`."""
        self._through().command(words)

    def say(self, line: str) -> None:
        """As `Lines.say`."""
        self._through().say(line)

    def close(self) -> None:
        """Take the bars away and show the cursor again. What still runs after that, in threads, shows none."""
        self._over = True
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _through(self) -> Lines:
        """Write above the bars while there are any."""
        if self._progress is None:
            return self.lines
        from msgspec.structs import replace

        return replace(self.lines, stream=_Above(self._progress))

    def _start(self, event: StepStarted) -> None:
        progress = self._shown()
        shown = len(self._running) < _MOST_LINES
        name = _short(event.image, event.step)
        self._running[event.image, event.step] = progress.add_task(name, total=None, visible=shown, bytes=True)

    def _move(self, event: Progressed) -> None:
        task = self._running.get((event.image, event.step))
        if task is not None and self._progress is not None:
            # For rich a new total is a new beginning, without a rate; one that only follows what is done is none.
            total = event.total if event.total > event.done else None
            self._progress.update(task, completed=event.done, total=total)

    def _end(self, image: str, step: str) -> None:
        if self._progress is None:
            return
        task = self._running.pop((image, step), None)
        if task is not None:
            self._progress.remove_task(task)
        if self._steps is not None:
            self._progress.update(self._steps, advance=1, total=self._planned)

    def _shown(self) -> Progress:
        """The bars, from the first step on."""
        if self._progress is None:
            self._progress = _bars(self.lines.stream, no_color=self.no_color)
            self._steps = self._progress.add_task("steps", total=self._planned or None, bytes=False)
            self._progress.start()
        return self._progress


class _Above:
    """A stream that writes above the bars, whole lines at a time."""

    def __init__(self, progress: Progress) -> None:
        self._console = progress.console

    def write(self, text: str, /) -> None:
        """Write lines that are fit to be shown; their colours stay."""
        from rich.text import Text

        self._console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)

    def flush(self) -> None:
        """Do nothing: rich writes at once."""

    def isatty(self) -> bool:
        """It is one, or there would be no bars."""
        return True


def _bars(stream: TextStream, *, no_color: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    from sconify_tasks.summary import size

    class Amount(ProgressColumn):
        """Steps, or bytes with their rate."""

        def render(self, task: Task) -> Text:
            if not task.fields.get("bytes"):
                return Text(f"{task.completed:.0f}/{task.total or 0:.0f}")
            if not task.completed:
                return Text("")
            of = f"/{size(task.total)}" if task.total else ""
            rate = f" {size(task.speed)}/s" if task.speed else ""
            return Text(f"{size(task.completed)}{of}{rate}")

    class Bar(BarColumn):
        """A bar where it is known how long it is."""

        def render(self, task: Task) -> Any:
            return super().render(task) if task.total else Text("")

    console = Console(file=_as_file(stream), force_terminal=True, no_color=no_color, highlight=False, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        Bar(bar_width=20),
        Amount(),
        TimeElapsedColumn(),
    )
    # sys.stdout and sys.stderr stay what they are: stdout carries results, and rich's stand-ins would print them here.
    return Progress(
        *columns,
        console=console,
        transient=True,
        refresh_per_second=_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _as_file(stream: TextStream) -> Any:
    return stream


def _short(image: str, step: str) -> str:
    name = clean(f"{image}: {step}" if image else step)
    return name if len(name) <= _LONGEST_NAME else "…" + name[-_LONGEST_NAME + 1 :]
