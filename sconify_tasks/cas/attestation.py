"""How a client attests a CAS: a quote whose report data is the hash of the CAS's identity key.

The channel then proves possession of that key. The report carries a mark that no LAS sets, so that a quote which anybody
may get from a LAS can't pass for a CAS's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sconify_tasks.errors import UsageError, VerificationError
from sconify_tasks.sgx.collateral import parse_collateral
from sconify_tasks.sgx.platform import MARK
from sconify_tasks.sgx.quote import DEBUG, INIT, MODE64BIT, ReportBody
from sconify_tasks.sgx.verify import QuotePolicy, VerifiedQuote, verify_quote

FAMILY = b"SCONIFY-CAS".ljust(16, b"\0")
# A program outside of an enclave has no measurement: this one stands for every simulated CAS and proves nothing.
_SIMULATED_MRENCLAVE = hashlib.sha256(b"SIMULATED sconify-cas").digest()


def own_report(spki_hash: str) -> ReportBody:
    """Make the report of a CAS that runs in simulation: DEBUG, and marked."""
    return ReportBody(
        mr_enclave=_SIMULATED_MRENCLAVE,
        mr_signer=bytes(32),
        report_data=bytes.fromhex(spki_hash) + bytes(32),
        flags=INIT | DEBUG | MODE64BIT,
        isv_family_id=FAMILY,
        config_id=MARK.encode().ljust(64, b"\0"),
    )


def check_attestation(
    document: Mapping[str, Any], spki_hash: str, roots: tuple[bytes, ...], now: datetime, policy: QuotePolicy
) -> VerifiedQuote:
    """Check what a CAS says of itself against the key that its channel proved. Raises VerificationError."""
    try:
        quote = base64.b64decode(document["quote"], validate=True)
        collateral = parse_collateral(document["collateral"])
    except (KeyError, TypeError, binascii.Error, ValueError, UsageError) as error:
        raise VerificationError(f"the CAS's attestation can't be read: {error}", hint="is it a sconify-cas?") from error
    verified = verify_quote(quote, collateral, roots, now, policy)
    if verified.report.isv_family_id != FAMILY:
        raise VerificationError("the quote that the CAS shows is not of a CAS", hint="don't use this CAS")
    if verified.report.report_data != bytes.fromhex(spki_hash) + bytes(32):
        raise VerificationError(
            "the quote that the CAS shows is of another key than its channel's", hint="somebody may be in between"
        )
    return verified
