"""What both verifiers read before they judge: certificate chains, and what a PCK certificate says of its platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sconify_tasks.sgx.quote import Quote, QuoteError

if TYPE_CHECKING:
    from cryptography import x509

PCK_CHAIN_LENGTH = 3


class Verdict(Struct, frozen=True, kw_only=True):
    """The platform's state as its manufacturer describes it."""

    status: str
    advisories: tuple[str, ...] = ()


def load_chain(pem: str | bytes, *, length: int, what: str) -> list[x509.Certificate]:
    """Read a PEM chain of exactly `length` certificates. Quotes of real platforms end theirs with a zero byte."""
    from cryptography import x509

    try:
        data = pem.encode() if isinstance(pem, str) else pem
        chain = x509.load_pem_x509_certificates(data.rstrip(b"\0"))
    except ValueError as error:
        raise QuoteError(f"the {what} chain can't be read: {error}", code="invalid") from error
    if len(chain) != length:
        raise QuoteError(f"the {what} chain has {len(chain)} certificates where {length} were expected", code="invalid")
    return chain


def pck_extension(quote: Quote) -> Any:
    """Read what the PCK certificate says of its platform (`dcap_qvl.PckExtension`). Raises QuoteError."""
    import dcap_qvl

    try:
        return dcap_qvl.parse_pck_extension_from_pem(quote.pck_chain.rstrip(b"\0"))
    except ValueError as error:
        raise QuoteError(f"the PCK certificate can't be read: {error}", code="invalid") from error
