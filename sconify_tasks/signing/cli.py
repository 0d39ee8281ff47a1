"""The command `sconify-sign`: sign on another machine. `data` writes what is to be signed, `attach` puts the signature in."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sconify_tasks.errors import UsageError
from sconify_tasks.inspection.cli import WHAT, Parser, ended
from sconify_tasks.sgx.claims import ATTRIBUTES, attributes_of

if TYPE_CHECKING:
    from sconify_tasks.sgx.claims import Claims
    from sconify_tasks.sgx.sigstruct import Sigstruct

_LARGEST = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is the error's: 4 where a signature does not verify."""
    return ended(lambda: _run(_parser().parse_args(arguments)))


def _run(options: argparse.Namespace) -> None:
    command: Callable[[argparse.Namespace], None] = options.command
    command(options)


def _parser() -> Parser:
    parser = Parser(
        prog="sconify-sign", allow_abbrev=False, description="Sign what was sconified with a key on another machine."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser("data", allow_abbrev=False, help="write the 256 bytes that are to be signed to stdout")
    data.add_argument("what", metavar="IMAGE|FILE", help=WHAT)
    data.add_argument("--enclave-mode", choices=("production", "debug"), default="production", help="default: production")
    data.add_argument(
        "--enclave-attributes",
        action="append",
        choices=ATTRIBUTES,
        metavar="NAME",
        help="may be repeated (default: as they are)",
    )
    data.add_argument("--isvprodid", type=int, metavar="INT", help="product id (default: as it is)")
    data.add_argument("--isvsvn", type=int, metavar="INT", help="security version number (default: as it is)")
    data.add_argument("--signing-date", type=int, metavar="YYYYMMDD", help="date in the signature (default: as it is)")
    data.set_defaults(command=_data)
    attach = commands.add_parser("attach", allow_abbrev=False, help="put a signature in, after verifying it")
    attach.add_argument("what", metavar="IMAGE|FILE", help=WHAT)
    attach.add_argument(
        "--signature", type=Path, required=True, metavar="SIG", help="384 bytes, as `openssl dgst -sign` writes them"
    )
    attach.add_argument("--key", type=Path, required=True, metavar="PUB", help="the signer's public key, PEM")
    attach.add_argument(
        "--data", type=Path, metavar="TBS", help="what was signed (default: what `data` writes without options)"
    )
    attach.add_argument("--to", metavar="IMAGE|FILE", help="where the signed one goes (default: in place of the unsigned one)")
    attach.set_defaults(command=_attach)
    for each in commands.choices.values():
        each.add_argument("--platform", default="linux/amd64", metavar="OS/ARCH", help="which image of several")
    return parser


def _data(options: argparse.Namespace) -> None:
    from sconify_tasks.environment import read_environment
    from sconify_tasks.inspection.report import inspect
    from sconify_tasks.inspection.subject import open_subject

    if sys.stdout.isatty():
        raise UsageError("this is no text for a terminal", hint="send it to a file: sconify-sign data … > tbs")
    with open_subject(options.what, environment=read_environment(os.environ), platform=options.platform) as subject:
        report = inspect(subject)
        report.require_verified()
    try:
        claims = _claims(report.found.sigstruct, options)
    except ValueError as error:
        raise UsageError(str(error), hint="sconify-sign data --help says what is allowed") from None
    sys.stdout.buffer.write(claims.signed)
    sys.stdout.buffer.flush()


def _claims(found: Sigstruct, options: argparse.Namespace) -> Claims:
    """What is to be signed: the present claims, but for what was asked for; in production mode unless told otherwise."""
    from msgspec.structs import replace

    asked = {"isv_prod_id": options.isvprodid, "isv_svn": options.isvsvn, "date": options.signing_date}
    given = {name: value for name, value in asked.items() if value is not None}
    if options.enclave_attributes is not None:
        given["attributes"] = attributes_of(options.enclave_attributes)
    return replace(found.claims, debug=options.enclave_mode == "debug", **given)


def _attach(options: argparse.Namespace) -> None:
    from msgspec.structs import replace

    from sconify_tasks.environment import read_environment
    from sconify_tasks.image.sinks import Sinks
    from sconify_tasks.inspection.report import inspect
    from sconify_tasks.inspection.subject import open_subject
    from sconify_tasks.sgx.sigstruct import mrsigner, parse_signed_data
    from sconify_tasks.signing.attach import attach_to_file, attach_to_image, new_sigstruct
    from sconify_tasks.signing.public import load_public
    from sconify_tasks.world import connect_engine

    environment = read_environment(os.environ)
    modulus, signature = load_public(options.key), _read(options.signature)
    with open_subject(options.what, environment=environment, platform=options.platform) as subject:
        report = inspect(subject)
        present = replace(report.found.sigstruct.claims, debug=False)
        claims = parse_signed_data(_read(options.data)) if options.data else present
        sigstruct = new_sigstruct(subject.file, claims, modulus, signature)
        if subject.image is None:
            attach_to_file(subject.file, sigstruct, Path(options.to) if options.to else subject.file)
        else:
            sinks = Sinks(docker=cache(lambda: connect_engine(environment)), default_oci_store=environment.state / "images")
            place = subject.place.encode()
            attach_to_image(subject.image, place, subject.file, sigstruct, sinks=sinks, to=options.to or subject.image.name)
    sys.stdout.write(mrsigner(modulus) + "\n")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint="look at its name") from error


if __name__ == "__main__":
    sys.exit(main())
