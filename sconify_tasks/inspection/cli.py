"""The command `sconify-inspect`: look into one sconified image or file, or compare two."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sconify_tasks.errors import Interrupted, SconifyError, UsageError

if TYPE_CHECKING:
    from sconify_tasks.sgx.measured_config import MeasuredConfig

WHAT = "an image (NAME, docker:NAME, oci:DIR[:TAG], dir:ROOTFS) or a sconified file"


class Parser(argparse.ArgumentParser):
    """Says what is wrong as every other error is said."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError rather than exit."""
        raise UsageError(message, hint=f"{self.prog} --help says how it is used")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is the error's: 4 where something does not verify."""
    return ended(lambda: _run(_parser().parse_args(arguments)))


def ended(command: Callable[[], None]) -> int:
    """Run a command of this kind: its error is one line on stderr, and gives the exit code."""
    from sconify_tasks.ui import lines

    screen = lines(sys.stderr, no_color=bool(os.environ.get("NO_COLOR")))
    try:
        command()
    except SconifyError as error:
        screen.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code
    except BrokenPipeError:
        return 1
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="sconify-inspect",
        allow_abbrev=False,
        description="Print measurement, signer and settings of what was sconified, and verify them. With two: what differs.",
    )
    parser.add_argument("one", metavar="IMAGE|FILE", help=WHAT)
    parser.add_argument("other", metavar="IMAGE|FILE", nargs="?", help="another one, to be compared with it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--sgxs", type=Path, metavar="FILE", help="write the SGXS stream: SHA-256 of it is MRENCLAVE")
    parser.add_argument("--platform", default="linux/amd64", metavar="OS/ARCH", help="which image of several")
    return parser


def _run(options: argparse.Namespace) -> None:
    from sconify_tasks.environment import read_environment
    from sconify_tasks.inspection.compare import compare
    from sconify_tasks.inspection.report import inspect
    from sconify_tasks.inspection.subject import open_subject
    from sconify_tasks.inspection.text import comparison_lines, report_lines

    if options.sgxs is not None and options.other is not None:
        raise UsageError("--sgxs is of one image or file", hint="leave the other out")
    names = [name for name in (options.one, options.other) if name is not None]
    with ExitStack() as opened:
        environment = read_environment(os.environ)
        reports = [
            inspect(opened.enter_context(open_subject(name, environment=environment, platform=options.platform)))
            for name in names
        ]
        if options.sgxs is not None:
            _write_sgxs(options.sgxs, reports[0].subject.file, reports[0].found.config)
        if len(reports) == 1:
            _print(options, reports[0].document, report_lines(reports[0]))
        else:
            found = compare(*reports)
            _print(options, found, comparison_lines(found, (names[0], names[1])))
    for report in reports:
        report.require_verified()


def _print(options: argparse.Namespace, document: Mapping[str, Any], lines: Iterable[str]) -> None:
    text = json.dumps(document, indent=1) if options.json else "\n".join(lines)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _write_sgxs(out: Path, runtime: Path, config: MeasuredConfig) -> None:
    """Write the stream whole or not at all."""
    from sconify_tasks.sgx.sgxs import write_sgxs

    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            with (Path(folder) / "sgxs").open("wb") as file:
                write_sgxs(file, runtime, config)
            (Path(folder) / "sgxs").replace(out)
    except OSError as error:
        raise UsageError(f"{out} can't be written: {error.strerror}", hint="choose another place") from error


if __name__ == "__main__":
    sys.exit(main())
