"""A key on a PKCS#11 token, named by an RFC 7512 URI. The key never leaves the token; it signs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sconify_tasks.errors import UnavailableError, UsageError
from sconify_tasks.sgx.signer import require_key
from sconify_tasks.signing.location import Token
from sconify_tasks.signing.passphrase import read_passphrase

if TYPE_CHECKING:
    from pkcs11 import Session

MODULE_VARIABLE = "SCONIFY_PKCS11_MODULE"
# Being logged in is a state of the whole process (PKCS#11 v2.40, 2.6): closing one session logs the others out.
_ONE_SESSION = Lock()
_INSTALL = "install it with: pip install 'sconify-tasks[pkcs11]'"


class TokenSigner(Struct, frozen=True, kw_only=True):
    """Opens a session for every question, so that a token can be taken out in between."""

    token: Token
    module: str
    pin: Callable[[str], bytes]

    @property
    def modulus(self) -> int:
        """The public modulus, as the token says it. No PIN is asked for where the token shows its public key without."""
        try:
            with self._session(login=False) as session:
                found = self._modulus(session, public=True)
        except _NotShownError:
            with self._session(login=True) as session:
                found = self._modulus(session, public=False)
        return found

    def sign(self, data: bytes) -> bytes:
        """Sign on the token. UnavailableError where it refuses."""
        from pkcs11 import Mechanism

        with self._session(login=True) as session:
            return bytes(self._key(session, public=False).sign(data, mechanism=Mechanism.SHA256_RSA_PKCS))

    def _modulus(self, session: Session, *, public: bool) -> int:
        from pkcs11 import Attribute
        from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid

        key = self._key(session, public=public)
        modulus = int.from_bytes(key[Attribute.MODULUS], "big")
        try:
            exponent = int.from_bytes(key[Attribute.PUBLIC_EXPONENT], "big")
        except (AttributeTypeInvalid, AttributeSensitive):
            exponent = 3  # a private key object need not say it; the signature is verified with 3
        require_key(f"the key {self._name}", bits=modulus.bit_length(), exponent=exponent)
        return modulus

    def _key(self, session: Session, *, public: bool) -> Any:
        from pkcs11 import Attribute, KeyType, ObjectClass

        wanted: dict[Attribute, object] = {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY if public else ObjectClass.PRIVATE_KEY,
            Attribute.KEY_TYPE: KeyType.RSA,
        }
        if "object" in self.token.attributes:
            wanted[Attribute.LABEL] = self.token.attributes["object"]
        if self.token.id:
            wanted[Attribute.ID] = self.token.id
        found = list(session.get_objects(wanted))
        if len(found) == 1:
            return found[0]
        if public and not found:
            raise _NotShownError
        how_many = f"{len(found)} keys" if found else "no RSA key"
        raise UsageError(f"the token has {how_many} that fit {self._name}", hint="name one with object= and id=")

    @contextmanager
    def _session(self, *, login: bool) -> Iterator[Session]:
        pkcs11 = _library()
        pin = self._pin() if login else None
        try:
            with _ONE_SESSION, self._slot(pkcs11).open(user_pin=pin) as session:
                yield session
        except pkcs11.exceptions.PinIncorrect:
            raise UsageError(f"the token refuses the PIN for {self._name}", hint="a few wrong ones lock it") from None
        except pkcs11.exceptions.PinLocked:
            raise UsageError(f"the PIN of the token is locked: {self._name}", hint="unlock it with its SO PIN") from None
        except (pkcs11.exceptions.PKCS11Error, RuntimeError) as error:
            what = type(error).__name__ + (f" ({error})" if str(error) else "")
            raise UnavailableError(f"the token refuses: {what}", hint=f"look at it, and at the module {self.module}") from None

    def _slot(self, pkcs11: Any) -> Any:
        wanted = self.token.attributes
        if not self.module:
            raise UsageError(
                "no PKCS#11 module is named", hint=f"set {MODULE_VARIABLE}, or say ?module-path=/usr/lib/…/lib.so in the URI"
            )
        try:
            library = pkcs11.lib(self.module)
        except (RuntimeError, pkcs11.exceptions.PKCS11Error) as error:
            raise UnavailableError(f"the PKCS#11 module {self.module} can't be loaded", hint="look at its path") from error
        tokens = [
            token
            for slot in library.get_slots(token_present=True)
            for token in [slot.get_token()]
            if _fits(token, slot, wanted) and token.flags & pkcs11.TokenFlag.TOKEN_INITIALIZED
        ]
        if len(tokens) != 1:
            how_many = f"{len(tokens)} tokens fit" if tokens else "no token fits"
            raise UnavailableError(f"{how_many} {self._name}", hint="name one with token= or serial=, and plug it in")
        return tokens[0]

    def _pin(self) -> str:
        source = self.token.pin_source
        pin = read_passphrase(Path(source)) if source else self.pin(f"the token of {self._name}")
        return pin.decode(errors="surrogateescape")

    @property
    def _name(self) -> str:
        return self.token.uri.partition("?")[0]


class _NotShownError(Exception):
    """The token shows no public key to whoever is not logged in."""


def _fits(token: Any, slot: Any, wanted: Any) -> bool:
    said = {
        "token": token.label,
        "serial": _text(token.serial),
        "manufacturer": token.manufacturer_id,
        "model": token.model,
        "slot-id": str(slot.slot_id),
    }
    return all(value.rstrip() == said[name].rstrip() for name, value in wanted.items() if name in said)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _library() -> Any:
    try:
        import pkcs11
    except ImportError:
        raise UsageError("pkcs11: keys need the package python-pkcs11", hint=_INSTALL) from None
    return pkcs11
