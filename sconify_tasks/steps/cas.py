"""cas: who the CAS is. Its identity key's hash becomes part of the measured config, so that any address is safe later."""

from __future__ import annotations

from pathlib import Path

from sconify_tasks.cas.choose import open_identity
from sconify_tasks.errors import UsageError
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the pin: as given, of the embedded CAS, or of the remote one after it was attested."""
    options = context.options
    if options["cas-key"]:
        return Outputs(facts={"pin": options["cas-key"]})
    if options["cas"] is None:
        return Outputs(facts={"pin": context.fact("embedded")})
    if options.flag("disable-session-upload"):
        raise UsageError(
            f"--disable-session-upload leaves the CAS {options['cas']} unasked, and its key unknown",
            hint="give its key with --cas-key, as `sconify-cas identity` prints it",
        )
    return Outputs(facts={"pin": _attested(context)})


def _attested(context: Context) -> str:
    from sconify_tasks.cas.client import CasClient

    options, environment = context.options, context.world.environment
    identity = open_identity(options, environment.home)
    if options.flag("disable-attestation"):
        return CasClient(options.text("cas"), identity, unattested=True).spki_hash
    client = CasClient(options.text("cas"), identity)
    return client.attest(_roots(context), now=context.world.now(), allow_debug=options.flag("cas-debug"))


def _roots(context: Context) -> tuple[bytes, ...]:
    """The roots that were given, and the one of this machine's simulated platform: both were added on purpose."""
    from sconify_tasks.cas.embedded import open_embedded
    from sconify_tasks.sgx.verify import load_roots

    roots = [open_embedded(context.world.state).platform.root_der]
    for path in context.options.texts("cas-root"):
        try:
            roots += load_roots(Path(path).read_bytes())
        except OSError as error:
            raise UsageError(f"--cas-root={path} can't be read: {error.strerror}") from error
    return tuple(roots)
