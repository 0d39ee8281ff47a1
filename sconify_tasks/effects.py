"""Whether what a step did outside still holds: one function for each step with an `effect`, of that step's name.

Every run asks, so nothing here loads what only the step itself needs.
"""

from __future__ import annotations

from pathlib import Path

from sconify_tasks.cas.embedded_hash import embedded_hash
from sconify_tasks.options import session_file
from sconify_tasks.step import Context, Outputs


def deliver(context: Context, outputs: Outputs) -> bool:
    """Whether the image is still there."""
    return context.world.sinks.holds(context.options.text("to"), str(outputs["identity"]))


def resources(context: Context, outputs: Outputs) -> bool:
    """Whether the files are still there: session and Dockerfile byte for byte, the layers in their length."""
    folder = Path(context.text("folder"))
    session = session_file(context.options, folder)
    layers = outputs["layers"]
    assert isinstance(layers, (list, tuple))
    try:
        return (
            session.read_bytes() == context.world.store.get(context.blob("session"))
            and (folder / "Dockerfile").read_text() == outputs["dockerfile"]
            and all((folder / str(name)).stat().st_size == size for name, size in layers)  # type: ignore[misc, str-unpack]
        )
    except (OSError, UnicodeDecodeError):
        return False


def upload(context: Context, outputs: Outputs) -> bool:
    """Whether the embedded CAS still serves that version. A remote CAS keeps what it took: it is not asked again."""
    if context.options["cas"] is not None:
        return True
    return embedded_hash(context.world.state, context.text("name")) == outputs["hash"]
