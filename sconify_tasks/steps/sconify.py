"""sconify: the sconified ELF at the binary's own path, in a layer of its own.

With embedded files it is as large as they are: it is written once, in the layer, where each content comes from the
previous layer of this image, inside the kernel, or from the native image.
"""

from __future__ import annotations

from collections.abc import Mapping

from sconify_cache.store import MissingBlobError
from sconify_tasks.binary_fs.filling import Filling, known_contents
from sconify_tasks.binary_fs.section import decode_outline
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.tar_write import FileRange
from sconify_tasks.large_layer import store_large_layer
from sconify_tasks.sconified import FILE_SYSTEM, Content, sconified_size, section_offset, write_sconified
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the layer with the runtime, the measured config, SIGSTRUCT, and what it carries: the original ELF, the files.

    With embedded files, `section` says where in the layer they begin, for the next time.
    """
    store = context.world.store
    contents: dict[str, Content] = {
        ".sconify.config": store.get(context.blob("config")),
        ".sconify.sig": store.get(context.blob("sigstruct")),
    }
    if not context.fact("protected"):
        contents[".sconify.elf"] = store.path(context.blob("elf"))
    filling = _filling(context) if "section" in context.inputs else None
    if filling is not None:
        contents[FILE_SYSTEM] = filling
    runtime = context.world.runtime(context.text("architecture"))
    # Readable by everyone whatever the original's mode was: the runtime reads its own sections.
    place, size = context.text("path").encode(), sconified_size(runtime, contents)
    entry = Entry(path=place, kind=Kind.FILE, mode=0o755, size=size)
    layer = store_large_layer(store, entry, lambda out: write_sconified(runtime, out, contents))
    if filling is None:
        return Outputs(blobs={"layer": layer.blob}, facts={"layer_facts": layer.facts()})
    context.count("files embedded", filling.read)
    context.count("files copied from before", filling.copied)
    offset = layer.offsets[place] + section_offset(runtime, contents, FILE_SYSTEM)
    return Outputs(blobs={"layer": layer.blob}, facts={"layer_facts": layer.facts(), "section": offset})


def _filling(context: Context) -> Filling:
    return Filling(
        outline=decode_outline(context.world.store.get(context.blob("section"))),
        native=context.native,
        known=_known(context),
        progress=context.progress,
    )


def _known(context: Context) -> Mapping[bytes, FileRange]:
    """What the previous layer of this image holds; nothing where it is gone."""
    previous = context.previous
    if previous is None or "layer" not in previous.blobs or "section" not in previous.facts:
        return {}
    try:
        path = context.world.store.path(previous.blobs["layer"])
        return known_contents(path, int(str(previous.facts["section"])))
    except (MissingBlobError, MalformedError):
        return {}
