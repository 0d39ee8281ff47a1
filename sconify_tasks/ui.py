"""Events as plain lines on one stream, for people. stdout is never touched: it carries results only.

One event, one line (details excepted). Nothing from an image reaches the terminal as a control sequence.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from sconify_tasks.errors import SconifyError
from sconify_tasks.events import Detail, Event, Noted, StepExplained, StepFailed, StepFinished, StepStarted, Warned

_RESET = "\x1b[0m"
_COLOURS = {"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m", "dim": "\x1b[2m"}
_NOT_WORTH_SAYING = 0.05


class TextStream(Protocol):
    """What is written to: sys.stderr, or a test's buffer."""

    def write(self, text: str, /) -> object:
        """Write text."""

    def flush(self) -> object:
        """Hand on what was written."""

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        ...


class Lines(Struct, frozen=True, kw_only=True):
    """A subscriber of the event stream that writes lines. `verbose` shows details, cached steps and reasons."""

    stream: TextStream
    color: bool = False
    verbose: bool = False
    commands: bool = False

    def __call__(self, event: Event) -> None:
        """Write what the event says, if anything."""
        line = self._line(event)
        if line:
            self.say(line)

    def error(self, error: SconifyError) -> None:
        """Write an error: the thing and the reason, then the next move."""
        hint = f" ({clean(error.hint)})" if error.hint else ""
        self.say(f"{self._paint('red', 'Error:')} {clean(error.message)}{hint}")

    def warn(self, message: str) -> None:
        """Write a warning."""
        self.say(f"{self._paint('yellow', 'Warning:')} {clean(message)}")

    def command(self, words: tuple[str, ...]) -> None:
        """Write a command that is about to run; only with -x."""
        if self.commands:
            import shlex

            self.say(f"+ {clean(shlex.join(words))}")

    def close(self) -> None:
        """Nothing is held: every line was written when it was due."""

    def _line(self, event: Event) -> str:
        where = f"{clean(event.image)}: " if event.image else ""
        text = ""
        if isinstance(event, StepExplained):
            text = explained(f"{where}{event.step}", event)
        elif isinstance(event, StepStarted):
            why = self._paint("dim", f" ({clean(event.why)})") if event.why and self.verbose else ""
            text = f"{where}{event.step}{why}"
        elif isinstance(event, StepFinished):
            text = self._finished(event, where)
        elif isinstance(event, StepFailed):
            text = f"{self._paint('red', 'Error:')} {where}{event.step}: {clean(event.message)}"
        elif isinstance(event, Warned):
            text = f"{self._paint('yellow', 'Warning:')} {where}{clean(event.message)}"
        elif isinstance(event, Noted):
            text = f"{where}{clean(event.message)}"
        elif isinstance(event, Detail) and self.verbose:
            text = "\n".join(where + clean(line) for line in event.message.split("\n"))
        return text

    def _finished(self, event: StepFinished, where: str) -> str:
        if event.cached and not self.verbose:
            return ""
        how = "cached" if event.cached else self._paint("green", "done")
        seconds = f" {event.seconds:.1f} s" if event.seconds >= _NOT_WORTH_SAYING else ""
        note = f", {clean(event.note)}" if event.note else ""
        return f"{where}{event.step} {how}{seconds}{note}"

    def _paint(self, colour: str, text: str) -> str:
        return f"{_COLOURS[colour]}{text}{_RESET}" if self.color else text

    def say(self, line: str) -> None:
        """Write a line that is fit to be shown."""
        self.stream.write(line + "\n")
        self.stream.flush()


def lines(stream: TextStream, *, no_color: bool = False, verbose: bool = False, commands: bool = False) -> Lines:
    """Make the subscriber for this stream: colours only on a terminal, and not with --no-color."""
    return Lines(stream=stream, color=not no_color and stream.isatty(), verbose=verbose, commands=commands)


def explained(name: str, event: StepExplained) -> str:
    """Why a step ran or did not: one line, and one more a reason."""
    lines = [f"{name} {event.state}:" if event.reasons else f"{name} {event.state}"]
    return "\n".join([*lines, *(f"    {clean(reason)}" for reason in event.reasons)])


def clean(text: str) -> str:
    """Names and messages may carry what an image holds: no line breaks, no terminal sequences, no reversed text."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] if char != "\t" else " " for char in text)
