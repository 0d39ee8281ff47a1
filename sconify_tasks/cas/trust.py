"""Whose quotes a CAS believes: roots, and the collateral that goes with each. Nothing is fetched: the rest is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sconify_tasks.sgx.collateral import Collateral
from sconify_tasks.sgx.pck import load_chain, pck_extension
from sconify_tasks.sgx.quote import Quote, QuoteError, parse_quote
from sconify_tasks.sgx.verify import QuotePolicy, VerifiedQuote, trusted_root, verify_quote


class CollateralSource(Protocol):
    """Makes collateral as of a moment: a simulated platform does."""

    def collateral(self, now: datetime) -> Collateral:
        """Collateral that is valid at `now`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Trusted roots (DER). `own_root` is of this machine's platform, whose collateral `own` makes; others' is in bundles."""

    own_root: bytes
    own: CollateralSource
    roots: tuple[bytes, ...] = ()
    bundles: tuple[Collateral, ...] = ()
    # Signing collateral costs more than verifying a quote, and it is good for the day.
    _cached: list[tuple[datetime, Collateral]] = field(default_factory=list, repr=False, compare=False)

    def verify(self, data: bytes, now: datetime, policy: QuotePolicy) -> VerifiedQuote:
        """Verify a quote against the root it claims, if that one is trusted. Raises QuoteError."""
        quote = parse_quote(data)
        roots = (self.own_root, *self.roots)
        root = trusted_root(quote, roots)
        collateral = self._own_collateral(now) if root == self.own_root else self._bundle(quote, root)
        return verify_quote(data, collateral, roots, now, policy)

    def _own_collateral(self, now: datetime) -> Collateral:
        for made, collateral in self._cached:
            if made.date() == now.date():
                return collateral
        collateral = self.own.collateral(now)
        self._cached[:] = [(now, collateral)]
        return collateral

    def _bundle(self, quote: Quote, root: bytes) -> Collateral:
        fmspc = pck_extension(quote).fmspc
        for bundle in self.bundles:
            if _issued_for(bundle) == (root, fmspc):
                return bundle
        raise QuoteError(
            f"no collateral for platforms of kind {fmspc.hex()} (FMSPC)",
            code="collateral",
            hint="start sconify-cas serve with --add-collateral FILE beside --add-root",
        )


def _issued_for(bundle: Collateral) -> tuple[bytes, bytes]:
    """Root (DER) and FMSPC of a bundle: which one to take. That it is genuine is checked with the quote."""
    from cryptography.hazmat.primitives.serialization import Encoding

    chain = load_chain(bundle.tcb_info_issuer_chain, length=2, what="TCB info")
    try:
        fmspc = bytes.fromhex(json.loads(bundle.tcb_info)["fmspc"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise QuoteError(f"collateral can't be read: {error}", code="collateral") from error
    return chain[-1].public_bytes(Encoding.DER), fmspc
