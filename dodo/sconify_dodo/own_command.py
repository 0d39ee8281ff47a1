"""What our commands have in common: options may also stand behind the names, and what is wrong with them is one line."""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Sequence
from typing import Any

from doit.cmd_base import Command
from doit.cmdparse import CmdParseError

from sconify_tasks.errors import UsageError


class OwnCommand(Command):  # type: ignore[misc]
    """A command whose words are put in doit's order, which takes an option behind a name for a name."""

    def parse_execute(self, in_args: Sequence[str]) -> int:
        """As `Command.parse_execute`; words that mean nothing come to the exit code of a usage error."""
        if "--help" in in_args:
            sys.stdout.write(f"{self.help()}\n")
            return 0
        try:
            options, names = self.cmdparser.parse(self._options_first(list(in_args)))
        except (getopt.GetoptError, CmdParseError) as error:
            from sconify_tasks.ui import lines

            what = str(error).replace("\n", " ")
            wrong = UsageError(f"doit {self.name}: {what}", hint=f"doit help {self.name} says which there are")
            lines(sys.stderr, no_color=bool(os.environ.get("NO_COLOR"))).error(wrong)
            return wrong.exit_code
        code: int = self.execute(options | self.opt_vals, names)
        return code

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Return the exit code."""
        raise NotImplementedError

    def _options_first(self, words: list[str]) -> list[str]:
        short, long = self.cmdparser.get_short(), self.cmdparser.get_long()
        options, names = getopt.gnu_getopt(words, short, long)
        values = {f"-{letter}" for letter, after in zip(short, [*short[1:], ""], strict=True) if after == ":"}
        values |= {f"--{name.removesuffix('=')}" for name in long if name.endswith("=")}
        moved = [word for name, value in options for word in ((name, value) if name in values else (name,))]
        return [*moved, "--", *names]
