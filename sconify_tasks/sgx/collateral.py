"""Collateral: what a verifier needs besides the quote and a root it trusts.

TCB info, QE identity, CRLs and the chains that sign them. The JSON form is the one of `dcap-qvl` (and of the PCCS tools
that feed it), so collateral of real platforms is taken as it is. Nothing here is trusted before `verify` has checked it.
"""

from __future__ import annotations

import binascii
import json

from msgspec import Struct
from msgspec.structs import asdict

from sconify_tasks.errors import UsageError

MAX_LENGTH = 1024 * 1024

_BINARY = frozenset({"root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"})


class Collateral(Struct, frozen=True, kw_only=True):
    """Chains are PEM, leaf first; CRLs are DER; signatures are raw r||s over the exact text of the JSON they sign."""

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes

    def to_json(self) -> str:
        """One JSON object; binary fields as hex."""
        values = asdict(self)
        return json.dumps({name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()})


def parse_collateral(text: str | bytes) -> Collateral:
    """Read the JSON form. Raises UsageError for anything that is not exactly that."""
    if len(text) > MAX_LENGTH:
        raise UsageError(f"collateral is larger than {MAX_LENGTH} bytes")
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise TypeError("not an object")  # noqa: TRY301
        known = set(Collateral.__struct_fields__)
        if missing := known - value.keys():
            raise ValueError(f"{min(missing)} is missing")  # noqa: TRY301
        read = {name: _field(name, value[name]) for name in known}
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"collateral is malformed: {error}", hint="expected the JSON of dcap-qvl or a PCCS") from error
    return Collateral(**read)  # type: ignore[arg-type]


def _field(name: str, value: object) -> str | bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a string")
    return binascii.unhexlify(value) if name in _BINARY else value
