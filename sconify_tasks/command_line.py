"""`sconify_image`'s command line: argparse made from the option table.

`--opt=value` and `--opt value`, repeats, no abbreviations. Words that belong to no option are warned about and ignored:
scripts in the wild pass an unquoted `--command=$ENTRYPOINT`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.option_checks import NOT_BUILT
from sconify_tasks.option_table import BY_NAME, GROUPS, OPTIONS, Option
from sconify_tasks.option_types import Value
from sconify_tasks.options import Options

PROGRAM = "sconify_image"
_WIDTH = 100
_ALIASES = {alias: option.name for option in OPTIONS for alias in option.aliases}
_FORMER = {former: option.name for option in OPTIONS for former in option.former}
# A flag until 2021: what stands alone still is that flag.
_ONCE_A_FLAG = {"trace": "debug"}
_ABOUT = "Turn a native container image into a confidential one."


class Parsed(Struct, frozen=True, kw_only=True):
    """A command line, read. `options` is complete but not checked (see `option_checks.check`)."""

    options: Options
    given: frozenset[str]
    warnings: tuple[str, ...]
    help: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise rather than exit: what is done about it is the program's business."""
        wants_value = "expected one argument" in message
        hint = (
            "write --OPTION=VALUE; so a value may begin with a dash" if wants_value else f"{PROGRAM} --help lists the options"
        )
        raise UsageError(message.removeprefix("argument "), hint=hint)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser; its values are text, or True for flags."""
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} --from=NATIVE_IMAGE --to=TO_IMAGE --binary=BINARY [OPTION…]",
        description=_ABOUT,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=_WIDTH),
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this and exit")
    for name in GROUPS:
        group = parser.add_argument_group(name)
        for option in OPTIONS:
            if option.group == name:
                _add(group, option)
    return parser


def format_help() -> str:
    """Return the text of --help."""
    return build_parser().format_help()


def parse_arguments(arguments: Sequence[str]) -> Parsed:
    """Read a command line without the program's name. Raise UsageError for an unknown option or a value that is not allowed."""
    warnings: list[str] = []
    found, rest = build_parser().parse_known_args(_present_names(arguments, warnings))
    for word in rest:
        if word.startswith("-") and word not in {"-", "--"}:
            raise _unknown(word)
    if stray := [word for word in rest if word != "--"]:
        # Not which: they may be the rest of an unquoted --command, and this ends up in logs.
        many = "one word that belongs" if len(stray) == 1 else f"{len(stray)} words that belong"
        warnings.append(f"ignored {many} to no option (put a value with spaces in quotes)")
    raw = vars(found)
    wants_help = bool(raw.pop("help", False))
    given = {name: _value(BY_NAME[name], value) for name, value in raw.items()}
    return Parsed(options=Options.of(given), given=frozenset(given), warnings=tuple(warnings), help=wants_help)


def invalid(option: Option, text: str, reason: ValueError) -> UsageError:
    """Make the error for a value that the option does not take; a secret value is not repeated."""
    shown = "…" if option.secret else text[:80] if text.isprintable() else repr(text[:80])
    return UsageError(f"--{option.name}={shown} is not allowed", hint=f"allowed: {reason}")


def _add(group: argparse._ArgumentGroup, option: Option) -> None:
    names = [f"-{option.short}"] if option.short else []
    names += [f"--{name}" for name in (option.name, *option.aliases)]
    text = describe(option).replace("%", "%%") + (" [not built yet: an error]" if option.name in NOT_BUILT else "")
    if option.is_flag:
        group.add_argument(*names, dest=option.name, action="store_true", help=text)
    else:
        action = "append" if option.repeat else "store"
        group.add_argument(*names, dest=option.name, action=action, metavar=option.metavar, help=text)


def describe(option: Option) -> str:
    """Return the help with what it comes to when nothing is said."""
    notes = ["may be repeated"] if option.repeat else []
    if option.default_text:
        notes.append(f"default: {option.default_text}")
    elif option.default is not None:
        notes.append(f"default: {option.show(option.default)}")
    return f"{option.help} ({'; '.join(notes)})" if notes else option.help


def _value(option: Option, raw: object) -> Value:
    if isinstance(raw, bool):
        return raw
    texts = [str(text) for text in raw] if isinstance(raw, list) else [str(raw)]
    values = []
    for text in texts:
        try:
            values.append(option.kind.value(text))
        except ValueError as reason:
            raise invalid(option, text, reason) from None
    return tuple(str(value) for value in values) if option.repeat else values[-1]


def _present_names(arguments: Sequence[str], warnings: list[str]) -> list[str]:
    """Put today's name in place of a former one."""
    words = list(arguments)
    for place, word in enumerate(words):
        if word == "--":
            break
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in _FORMER:
            warnings.append(f"--{name} is called --{_FORMER[name]} today")
            words[place] = f"--{_FORMER[name]}{equals}{value}"
        elif name in _ONCE_A_FLAG and word == f"--{name}" and "".join(words[place + 1 : place + 2])[:1] in ("", "-"):
            warnings.append(f"--{name} without a file is called --{_ONCE_A_FLAG[name]} today")
            words[place] = f"--{_ONCE_A_FLAG[name]}"
    return words


def _unknown(word: str) -> UsageError:
    import difflib

    name = word.partition("=")[0]
    known = [f"--{name}" for name in (*BY_NAME, *_ALIASES)]
    near = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"{PROGRAM} --help lists the options"
    return UsageError(f"unknown option {name[:60]}", hint=hint)
