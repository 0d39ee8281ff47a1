"""Signatures that were made before: what was signed once by a key is not signed again, and its token is not touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from sconify_cache.digest import Digest
from sconify_cache.keys import Action
from sconify_cache.record import Record
from sconify_cache.store import MissingBlobError
from sconify_tasks.errors import VerificationError
from sconify_tasks.sgx.claims import Claims
from sconify_tasks.sgx.measurement import EnclaveError

if TYPE_CHECKING:
    from sconify_tasks.sgx.signer import Signer
    from sconify_tasks.world import World

_STEP = "signature"


def signed(world: World, claims: Claims, mrsigner: str, signer: Callable[[], Signer]) -> Digest:
    """Return the blob of a SIGSTRUCT by the key `mrsigner`: from the cache, else by asking `signer`.

    VerificationError where the signer's key is another one. A signature is public: its record may be shared.
    """
    action = Action(step=_STEP, version=1, inputs={"mrsigner": mrsigner}, options=asdict(claims))
    known = _known(world, action, claims, mrsigner)
    if known is not None:
        return known
    from sconify_tasks.sgx.sigstruct import assemble
    from sconify_tasks.sgx.sigstruct import mrsigner as name_of

    opened = signer()
    modulus = opened.modulus
    if name_of(modulus) != mrsigner:
        raise VerificationError(
            f"the signing key is another one than before: MRSIGNER {name_of(modulus)}, not {mrsigner}",
            hint="if that is meant, build again: the new key is known now",
        )
    sigstruct = assemble(claims, modulus, opened.sign(claims.signed))
    blob = world.store.put(sigstruct)
    world.actions.record(Record.of(action, outputs={"sigstruct": blob}))
    return blob


def _known(world: World, action: Action, claims: Claims, mrsigner: str) -> Digest | None:
    from sconify_tasks.sgx.sigstruct import parse_sigstruct, verify_sigstruct

    record = world.actions.lookup(action.key)
    if record is None:
        return None
    blob = record.outputs["sigstruct"]
    try:
        found = parse_sigstruct(world.store.get(blob))
        verify_sigstruct(found)
    except (MissingBlobError, EnclaveError):
        return None
    return blob if (found.claims, found.mrsigner) == (claims, mrsigner) else None
