"""The signer of one image: MRSIGNER first, which every build needs, and the key itself only when something is to be signed.

What MRSIGNER a key file has is remembered by the file's content, and what a token has by its URI, so that a build with
nothing to sign loads no key, asks for no passphrase and touches no token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sconify_cache.keys import Action, content_id
from sconify_cache.record import Record
from sconify_tasks.errors import UsageError
from sconify_tasks.signing.location import Command, Location, PemFile, Token, parse_location
from sconify_tasks.signing.passphrase import Passphrase

if TYPE_CHECKING:
    from sconify_tasks.options import Options
    from sconify_tasks.sgx.signer import Signer
    from sconify_tasks.world import World

_MEMORY = "signer"
_IMAGES = ("from", "base", "to")


@dataclass(kw_only=True)
class ChosenSigner:
    """One key, opened at most once. `public` is a file with its public half, where the user gave one."""

    location: Location
    public: Path | None
    passphrase: Passphrase = field(repr=False)
    module: str
    actions: Any
    component_key: bytes = field(repr=False)
    _opened: Signer | None = None
    _lock: Lock = field(default_factory=Lock)

    def mrsigner(self) -> str:
        """SHA-256 of the key's modulus: its name in keys and in quotes."""
        record = self.actions.lookup(self._memory.key)
        if record is not None:
            return str(record.facts["mrsigner"])
        if self.public is not None:
            from sconify_tasks.sgx.sigstruct import mrsigner

            return self._remember(mrsigner(self._public_modulus()))
        return self._remember(_mrsigner(self.signer()))

    @property
    def in_memory(self) -> bool:
        """Whether the key, once opened, is of no more than this process's memory: a fork has it too."""
        return isinstance(self.location, PemFile)

    def signer(self) -> Signer:
        """The signer itself. UsageError where its key is another one than the public key that was given."""
        with self._lock:  # steps of several images ask at once, and a passphrase is to be asked for once
            if self._opened is None:
                self._opened = self._checked(self._open())
            return self._opened

    def _checked(self, opened: Signer) -> Signer:
        if self.public is not None and not isinstance(self.location, Command) and opened.modulus != self._public_modulus():
            raise UsageError(
                f"the public key {self.public} is not that of --scone-signer", hint="give the public half of the same key"
            )
        self._remember(_mrsigner(opened))  # a token's key may be another one by now than when it was last asked
        return opened

    def _open(self) -> Signer:
        if isinstance(self.location, PemFile):
            from sconify_tasks.sgx.signer import PemSigner

            return PemSigner.from_file(self.location.path, passphrase=self.passphrase)
        if isinstance(self.location, Token):
            from sconify_tasks.signing.pkcs11 import TokenSigner

            return TokenSigner(token=self.location, module=self.location.module or self.module, pin=self.passphrase)
        from sconify_tasks.signing.command import CommandSigner

        return CommandSigner(words=self.location.words, modulus=self._public_modulus())

    @cached_property
    def _memory(self) -> Action:
        """The look-up by which MRSIGNER is remembered. Contents enter it keyed: one of them may be a private key."""
        from sconify_tasks.sgx.signer import read_pem

        if self.public is not None:
            source = b"public\0" + read_pem(self.public, "the public key")
        elif isinstance(self.location, PemFile):
            source = b"pem\0" + read_pem(self.location.path, "the signing key")
        elif isinstance(self.location, Token):
            source = b"token\0" + f"{self.location.module or self.module}\0{self.location.uri}".encode()
        else:
            raise UsageError(
                "a signing command needs to come with its public key", hint="add --scone-signer-public-key=FILE (PEM)"
            )
        return Action(step=_MEMORY, version=1, inputs={"source": "keyed:" + content_id(self.component_key, source)})

    def _public_modulus(self) -> int:
        from sconify_tasks.signing.public import load_public

        assert self.public is not None
        return load_public(self.public)

    def _remember(self, mrsigner: str) -> str:
        known = self.actions.lookup(self._memory.key)
        if known is None or known.facts["mrsigner"] != mrsigner:
            self.actions.record(Record.of(self._memory, outputs={}, facts={"mrsigner": mrsigner}, secret=True))
        return mrsigner


class DebugSigner(Struct, frozen=True, kw_only=True):
    """The published debug key, which is the default."""

    def mrsigner(self) -> str:
        """A constant: no key is loaded for it."""
        from sconify_tasks.sgx.signer import DEBUG_MRSIGNER

        return DEBUG_MRSIGNER

    def signer(self) -> Signer:
        """The key, which everybody has."""
        from sconify_tasks.sgx.signer import debug_signer

        return debug_signer()


def choose_signer(world: World, options: Options) -> ChosenSigner | DebugSigner:
    """Return the signer that the options name, else the environment, else the debug key. No key is opened."""
    environment = world.environment
    text = options.text("scone-signer") or environment.signer
    if not text:
        for name in ("scone-signer-public-key", "scone-signer-passphrase-file"):
            if options[name]:
                raise UsageError(
                    f"--{name} means nothing without --scone-signer", hint="name the key, here or in SCONIFY_SIGNER, or drop it"
                )
        return DebugSigner()
    try:
        location = parse_location(text)
    except ValueError as error:
        raise UsageError("SCONIFY_SIGNER names no signing key", hint=f"allowed: {error}") from None
    if isinstance(location, PemFile):
        _refuse_inside_images(location.path, options)
    public, passphrase_file = _path(options, "scone-signer-public-key"), _path(options, "scone-signer-passphrase-file")
    chosen = ChosenSigner(
        location=location,
        public=public,
        passphrase=Passphrase(file=passphrase_file, given=environment.signer_passphrase),
        module=environment.pkcs11_module,
        actions=world.actions,
        component_key=world.keys.component_key(),
    )
    # Images with the same key share its signer.
    return world.signers.setdefault((text, public, passphrase_file), chosen)


def _path(options: Options, name: str) -> Path | None:
    return Path(options.text(name)) if options[name] else None


def _refuse_inside_images(path: Path, options: Options) -> None:
    """UsageError for a key that lies in a folder that is, or becomes, an image: it would be delivered with it."""
    for name in _IMAGES:
        transport, _, rest = options.text(name).partition(":")
        folder = rest if transport == "dir" else _layout(rest) if transport == "oci" else ""
        if folder and path.resolve().is_relative_to(Path(folder).resolve()):
            raise UsageError(f"the signing key {path} lies inside of --{name}={options.text(name)}", hint="keep it elsewhere")


def _layout(rest: str) -> str:
    from sconify_tasks.image.references import split_layout

    return str(split_layout(rest)[0])


def _mrsigner(signer: Signer) -> str:
    from sconify_tasks.sgx.sigstruct import mrsigner

    return mrsigner(signer.modulus)
