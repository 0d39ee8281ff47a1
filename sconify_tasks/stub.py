"""The runtime as it stands at the path of an encrypted executable: the same file for every image, made once and kept.

It lacks the runtime's own section header table, which lies among measured bytes and is not measured.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sconify_cache.keys import Action
from sconify_cache.record import Record
from sconify_cache.store import MissingBlobError
from sconify_tasks.sconified import write_sconified
from sconify_tasks.world import World

_VERSION = 1


def stub_of(world: World, architecture: str) -> Path:
    """Where the stub for an OCI architecture lies in the store; to be read, never written."""
    action = Action(
        step="stub", version=_VERSION, inputs={"runtime": world.runtimes_digest}, options={"architecture": architecture}
    )
    record = world.actions.lookup(action.key)
    if record is not None:
        with suppress(MissingBlobError):
            return world.store.path(record.outputs["stub"])
    with world.store.scratch() as scratch:
        write_sconified(world.runtime(architecture), scratch / "stub", {})
        made = world.store.adopt(scratch / "stub")
    world.actions.record(Record.of(action, outputs={"stub": made}))
    return world.store.path(made)
