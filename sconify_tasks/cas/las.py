"""The LAS: answers requests for quotes on a simulated platform (docs/formats.md section 8.1).

Over TCP it can't see who asks: anyone who reaches it gets a quote for any SIGSTRUCT that verifies. So DEBUG is always set,
whatever the SIGSTRUCT says, and the report carries marks that say self-reported and simulated.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from sconify_tasks.cas.frames import RefusedError, expect, hex_bytes
from sconify_tasks.sgx.platform import MARK, SimulatedPlatform
from sconify_tasks.sgx.quote import DEBUG, INIT, MODE64BIT, ReportBody

SELF_REPORTED = b"SELF-REPORTED\0\0\0"
CONFIG_ID = MARK.encode().ljust(64, b"\0")
SIGSTRUCT_LENGTH = 1808


def answer_quote(platform: SimulatedPlatform, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request. RefusedError where the request is malformed or the SIGSTRUCT is not of this enclave."""
    expect(request, "quote", ("mrenclave", "sigstruct", "report_data"))
    mrenclave = hex_bytes(request["mrenclave"], 32, "mrenclave")
    report_data = hex_bytes(request["report_data"], 64, "report_data")
    signed = hex_bytes(request["sigstruct"], SIGSTRUCT_LENGTH, "sigstruct")
    report = report_of(mrenclave, signed, report_data)
    return {"quote": base64.b64encode(platform.quote(report)).decode()}


def report_of(mrenclave: bytes, signed: bytes, report_data: bytes) -> ReportBody:
    """Make the report that an enclave started with this SIGSTRUCT would make, DEBUG and with our marks."""
    from sconify_tasks.sgx.claims import bits_of
    from sconify_tasks.sgx.measurement import EnclaveError
    from sconify_tasks.sgx.sigstruct import parse_sigstruct, verify_sigstruct

    try:
        sigstruct = parse_sigstruct(signed)
        verify_sigstruct(sigstruct)
    except EnclaveError as error:
        raise RefusedError(f"the SIGSTRUCT is refused: {error.message}", code="bad-request", hint=error.hint) from error
    if sigstruct.mrenclave != mrenclave.hex():
        raise RefusedError(
            f"the SIGSTRUCT is of enclave {sigstruct.mrenclave}, the quote was asked for {mrenclave.hex()}", code="bad-request"
        )
    flags, xfrm = bits_of(sigstruct.attributes)
    return ReportBody(
        mr_enclave=mrenclave,
        mr_signer=bytes.fromhex(sigstruct.mrsigner),
        report_data=report_data,
        flags=INIT | DEBUG | MODE64BIT | flags,
        xfrm=xfrm,
        isv_prod_id=sigstruct.isv_prod_id,
        isv_svn=sigstruct.isv_svn,
        isv_family_id=SELF_REPORTED,
        config_id=CONFIG_ID,
    )
