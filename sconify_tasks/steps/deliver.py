"""deliver: the image to where `--to` says: an engine, or an OCI layout."""

from __future__ import annotations

from sconify_tasks.assembled import assembled
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield what the sink knows the image by. A delivery that fails leaves the name as it was."""
    sink, name = context.world.sinks.open(context.options.text("to"))
    built = assembled(context)
    delivered = sink.deliver(built, context.base(), name)
    context.world.delivered(context.options.text("to"))
    before = context.previous.facts.get("layers", []) if context.previous is not None else []
    for layer in built.layers:
        reused = isinstance(before, (list, tuple)) and str(layer.diff_id) in before
        if not reused:
            context.count("bytes delivered", layer.size)
        context.layer_delivered(str(layer.diff_id), layer.size, reused=reused)
    context.note(f"delivered {delivered.config_digest} as {name}")
    layers = tuple(str(layer.diff_id) for layer in built.layers)
    return Outputs(facts={"identity": delivered.identity, "config": str(delivered.config_digest), "layers": layers})
