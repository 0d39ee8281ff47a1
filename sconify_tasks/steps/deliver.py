"""deliver: the image to where `--to` says: an engine, or an OCI layout."""

from __future__ import annotations

from sconify_tasks.assembled import assembled
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield what the sink knows the image by. A delivery that fails leaves the name as it was."""
    sink, name = context.world.sinks.open(context.options.text("to"))
    delivered = sink.deliver(assembled(context), context.base(), name)
    context.note(f"delivered {delivered.config_digest} as {name}")
    return Outputs(facts={"identity": delivered.identity, "config": str(delivered.config_digest)})
