"""The command `sconify-cas`: serve, and print what others need to know of this CAS."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sconify_tasks.environment import read_environment
from sconify_tasks.errors import SconifyError, UsageError

_MAX_FILE = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is the error's."""
    options = _parser().parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace], None] = options.command
        command(options)
    except SconifyError as error:
        print(f"sconify-cas: {error}", file=sys.stderr)  # noqa: T201 - a command line's stderr
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sconify-cas", allow_abbrev=False, description="A CAS and a LAS for sconified images."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", allow_abbrev=False, help="serve clients, enclaves and (in simulation) quotes")
    serve.add_argument(
        "--listen",
        action="append",
        metavar="ADDR",
        help="address to listen on; repeat for more (default: loopback and docker0)",
    )
    serve.add_argument("--api-port", type=_port, default=8081, metavar="PORT", help="clients, HTTPS (default: 8081; 0: any)")
    serve.add_argument(
        "--enclave-port", type=_port, default=18765, metavar="PORT", help="enclaves, TLS (default: 18765; 0: any)"
    )
    serve.add_argument("--las-port", type=_port, default=18766, metavar="PORT", help="LAS, TCP (default: 18766; 0: any)")
    serve.add_argument("--no-las", action="store_true", help="make no quotes")
    serve.add_argument(
        "--add-root", action="append", default=[], metavar="PEM", help="trust quotes under this root too; repeat for more"
    )
    serve.add_argument(
        "--add-collateral", action="append", default=[], metavar="JSON", help="collateral of such platforms; repeat for more"
    )
    serve.set_defaults(command=_serve)
    for name, command, what in (
        ("identity", _identity, "print the pin: SHA-256 of the CAS's public key (SPKI), as --cas-key takes it"),
        ("root", _root, "print the root certificate of this machine's SIMULATED platform"),
        ("collateral", _collateral, "print that platform's collateral, valid for 29 days"),
    ):
        commands.add_parser(name, help=what, allow_abbrev=False).set_defaults(command=command)
    for each in commands.choices.values():
        each.add_argument("--state", type=Path, metavar="DIR", help="state folder (default: that of sconify_image)")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:  # noqa: PLR2004
        raise argparse.ArgumentTypeError("a port is 0 to 65535")
    return port


def _state(options: argparse.Namespace) -> Path:
    return options.state or read_environment(os.environ).state


def _serve(options: argparse.Namespace) -> None:
    from sconify_tasks.cas.bridge import bridge_address
    from sconify_tasks.cas.embedded import open_embedded
    from sconify_tasks.cas.server import Listen, serve
    from sconify_tasks.sgx.collateral import parse_collateral
    from sconify_tasks.sgx.verify import load_roots

    roots = tuple(root for path in options.add_root for root in load_roots(_read(path)))
    bundles = tuple(parse_collateral(_read(path)) for path in options.add_collateral)
    addresses = options.listen or ["127.0.0.1", *filter(None, [bridge_address()])]
    where = Listen(
        addresses=tuple(dict.fromkeys(addresses)),
        api_port=options.api_port,
        enclave_port=options.enclave_port,
        las_port=None if options.no_las else options.las_port,
    )
    service = open_embedded(_state(options), roots=roots, bundles=bundles)
    serve(service, where, out=sys.stdout, log=lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201


def _identity(options: argparse.Namespace) -> None:
    from sconify_tasks.cas.embedded import open_embedded

    print(open_embedded(_state(options)).spki_hash)  # noqa: T201 - the result


def _root(options: argparse.Namespace) -> None:
    from sconify_tasks.cas.embedded import open_embedded

    print(open_embedded(_state(options)).platform.root_pem, end="")  # noqa: T201 - the result


def _collateral(options: argparse.Namespace) -> None:
    from sconify_tasks.cas.embedded import open_embedded

    service = open_embedded(_state(options))
    print(service.platform.collateral(service.now()).to_json())  # noqa: T201 - the result


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    if len(content) > _MAX_FILE:
        raise UsageError(f"{path} is larger than {_MAX_FILE} bytes")
    return content


if __name__ == "__main__":
    sys.exit(main())
