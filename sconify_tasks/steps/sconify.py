"""sconify: the sconified ELF at the binary's own path, in a layer of its own."""

from __future__ import annotations

from pathlib import Path

from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.tar_write import FileRange
from sconify_tasks.layers import store_layer
from sconify_tasks.sconified import write_sconified
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the layer with the runtime, the measured config, SIGSTRUCT, and what it carries: the original ELF, the files."""
    store = context.world.store
    sections: dict[str, bytes | Path] = {
        ".sconify.config": store.get(context.blob("config")),
        ".sconify.sig": store.get(context.blob("sigstruct")),
    }
    if not context.fact("protected"):
        sections[".sconify.elf"] = store.path(context.blob("elf"))
    if "section" in context.inputs:
        sections[".sconify.fs"] = store.path(context.blob("section"))
    with store.scratch() as scratch:
        path = scratch / "sconified"
        write_sconified(context.world.runtime(context.text("architecture")), path, sections)
        size = path.stat().st_size
        place = context.text("path").encode()
        # Readable by everyone whatever the original's mode was: the runtime reads its own sections.
        entry = Entry(path=place, kind=Kind.FILE, mode=0o755, size=size)
        layer = store_layer(store, [(entry, FileRange(path=path, length=size))])
    return Outputs(blobs={"layer": layer.blob}, facts={"layer_facts": layer.facts()})
