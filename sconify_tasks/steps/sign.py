"""sign: the measured config, MRENCLAVE over it, and SIGSTRUCT over that."""

from __future__ import annotations

from datetime import UTC, datetime

from sconify_tasks.errors import UsageError
from sconify_tasks.sgx.claims import Claims, attributes_of
from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig
from sconify_tasks.sgx.measurement import MrEnclave
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.sgx.signer import DEBUG_MRSIGNER
from sconify_tasks.signing.signatures import signed
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield MRENCLAVE, the config's pages and the SIGSTRUCT."""
    config = measured(context)
    mrenclave = measure(context.world.runtime(context.text("architecture")), config)
    sigstruct = signed(context.world, _claims(context, mrenclave), context.text("signer"), context.signer)
    return Outputs(
        blobs={"config": context.world.store.put(config.encode()), "sigstruct": sigstruct},
        facts={"mrenclave": str(mrenclave)},
    )


def measured(context: Context) -> MeasuredConfig:
    """The config that MRENCLAVE is taken over; `explain` asks for it without running the step."""
    options = context.options
    pin = context.fact("pin")
    return MeasuredConfig(
        heap=options.number("heap"),
        stack=options.number("stack"),
        dlopen=options.number("dlopen"),
        fork=options.number("fork"),
        mprotect=options.number("mprotect"),
        threads=options.number("threads"),
        binary=MeasuredBinary(
            path=context.text("path"),
            sha256=context.text("sha256"),
            size=context.number("size"),
            protected=bool(context.fact("protected")),
        ),
        binary_fs=context.text("binary_fs") if "binary_fs" in context.inputs else None,
        cas_spki=None if pin is None else str(pin),
    )


def _claims(context: Context, mrenclave: MrEnclave) -> Claims:
    options = context.options
    published = context.text("signer") == DEBUG_MRSIGNER
    mode = options.text("enclave-mode") or ("debug" if published else "production")
    if published and mode == "production":
        raise UsageError(
            "the debug key is published: a production signature by it would say nothing",
            hint="name a key of your own with --scone-signer, or leave --enclave-mode=production out",
        )
    date = datetime.fromtimestamp(context.number("epoch"), tz=UTC).strftime("%Y%m%d")
    return Claims(
        mrenclave=mrenclave,
        debug=mode == "debug",
        isv_prod_id=options.number("isvprodid"),
        isv_svn=options.number("isvsvn"),
        date=options.number("signing-date") if options["signing-date"] else int(date),
        attributes=attributes_of(options.texts("enclave-attributes")),
    )
