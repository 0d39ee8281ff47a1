"""sign: the measured config, MRENCLAVE over it, and SIGSTRUCT over that."""

from __future__ import annotations

from datetime import UTC, datetime

from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.sgx.signer import debug_signer
from sconify_tasks.sgx.sigstruct import build_sigstruct
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield MRENCLAVE, the config's pages and the SIGSTRUCT."""
    options = context.options
    pin = context.fact("pin")
    config = MeasuredConfig(
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
        cas_spki=None if pin is None else str(pin),
    )
    mrenclave = measure(context.world.runtime(context.text("architecture")), config)
    date = datetime.fromtimestamp(context.number("epoch"), tz=UTC)
    sigstruct = build_sigstruct(mrenclave, debug_signer(), debug=True, date=int(date.strftime("%Y%m%d")))
    store = context.world.store
    return Outputs(
        blobs={"config": store.put(config.encode()), "sigstruct": store.put(sigstruct)},
        facts={"mrenclave": str(mrenclave)},
    )
