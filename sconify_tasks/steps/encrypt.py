"""encrypt: the protected files as ciphertext, in one layer; unchanged ciphertext is copied from the previous layer.

An executable's ciphertext lies under /fspf/x, and the stub stands at its path. The sconified binary's own path is left
to the step that makes it.

What it yields is public: the layer, and where in it a keyed content id's ciphertext lies. The salts come from `files`; each
is compared with that of the bytes that are encrypted here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from sconify_cache.store import MissingBlobError
from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.names import STUB_PATH, X_DIRECTORY, stored_path
from sconify_tasks.fspf.stream import seal_file, sealed_size
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.paths import shown
from sconify_tasks.image.tar_write import Content, FileRange
from sconify_tasks.keys import key_id
from sconify_tasks.layers import StoredLayer, store_layer
from sconify_tasks.sealed import flagged
from sconify_tasks.step import Context, Outputs
from sconify_tasks.stub import stub_of

_IN_MEMORY = 1 << 20


@dataclass(slots=True, kw_only=True)
class Sealer:
    """Encrypts to one scratch file, and remembers by content id what is already encrypted."""

    key: bytes
    path: Path
    salts: Mapping[bytes, bytes]
    known: dict[bytes, FileRange] = field(default_factory=dict)
    progress: Callable[[int], None] = lambda _: None

    def seal(self, content_id: bytes, entry: Entry, content: BinaryIO, out: BinaryIO) -> None:
        """Append the ciphertext of `content` to `out`. Its key is made of its own digest, whatever the trees say of it."""
        start = out.tell()
        sealed = seal_file(self.key, content)
        if sealed.size != entry.size or sealed.salt != self.salts[entry.path]:
            raise SconifyError(f"{shown(entry.path)} changed while it was read", hint="build again when nothing writes to it")
        for chunk in sealed.chunks:
            out.write(chunk)
            self.progress(len(chunk))
        self.known[content_id] = FileRange(path=self.path, offset=start, length=out.tell() - start)


def run(context: Context) -> Outputs:
    """Yield the ciphertext layer, and an index of it for the next time."""
    store = context.world.store
    wanted = context.world.trees.get(context.blob("secret"))
    if not wanted:
        return Outputs(facts={"layer": None, "layer_facts": None})
    main = context.text("binary").encode()
    salts = [flagged(entry, main=main) for entry in context.world.trees.get(context.blob("salts"))]
    with store.scratch() as scratch:
        sealer = Sealer(
            key=context.fspf_key(),
            path=scratch / "ciphertext",
            salts={entry.path: entry.content for entry in salts},
            known=_known(context),
        )
        _seal_missing(context, sealer, wanted, scratch)
        stub = partial(stub_of, context.world, context.text("architecture"))
        layer = store_layer(store, _layer_items(stub, salts, wanted, sealer))
    index = _index(wanted, salts, layer, sealer.key)
    return Outputs(
        blobs={"layer": layer.blob, "index": store.put(json.dumps(index, sort_keys=True).encode())},
        facts={"layer_facts": layer.facts()},
    )


def _known(context: Context) -> dict[bytes, FileRange]:
    """What the previous layer of this image holds under the same key; empty where anything of it is gone."""
    previous, store = context.previous, context.world.store
    if previous is None or not {"layer", "index"} <= previous.blobs.keys():
        return {}
    try:
        index: dict[str, Any] = json.loads(store.get(previous.blobs["index"]))
        path = store.path(previous.blobs["layer"])
    except MissingBlobError:
        return {}
    if index["key_id"] != context.text("key_id"):
        return {}
    return {
        bytes.fromhex(content_id): FileRange(path=path, offset=offset, length=sealed_size(size))
        for content_id, (offset, size) in index["files"].items()
    }


def _seal_missing(context: Context, sealer: Sealer, wanted: Sequence[ManifestEntry], scratch: Path) -> None:
    """Encrypt what no earlier layer has, each content once, in one walk of the native image."""
    by_path, total = _missing(context, sealer, wanted)
    sealer.progress = partial(context.progress, total=total)
    with (scratch / "ciphertext").open("wb") as out, context.native().walk(sorted(by_path)) as stream:
        for found, content in stream:
            content_id = by_path.pop(found.path, None)
            if content_id is None or content is None:
                continue
            if found.size <= _IN_MEMORY:
                sealer.seal(content_id, found, content, out)
                continue
            with _seekable(content) as readable:
                sealer.seal(content_id, found, readable, out)
    if by_path:
        raise SconifyError(f"{shown(min(by_path))} is gone from the native image", hint="build again when nothing writes to it")


def _missing(context: Context, sealer: Sealer, wanted: Sequence[ManifestEntry]) -> tuple[dict[bytes, bytes], int]:
    """Where each content that must be encrypted is read, and how many bytes that is."""
    missing: dict[bytes, bytes] = {}
    copied = total = 0
    for entry in wanted:
        if entry.meta.kind is not Kind.FILE:
            continue
        if entry.content in sealer.known:
            copied += entry.meta.size
        elif entry.content not in missing:
            missing[entry.content] = entry.meta.path
            total += entry.meta.size
    for what, number in (("bytes copied from before", copied), ("bytes encrypted", total), ("files encrypted", len(missing))):
        if number:
            context.count(what, number)
    return {path: content_id for content_id, path in missing.items()}, total


class _seekable:  # noqa: N801 - a context manager that reads as a function
    """The content, from a stream that can be read twice: plaintext waits in an unnamed file at most."""

    def __init__(self, content: BinaryIO) -> None:
        self._content, self._stack = content, ExitStack()

    def __enter__(self) -> BinaryIO:
        import shutil
        import tempfile

        if self._content.seekable():
            return self._content
        copy = self._stack.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(self._content, copy, 1 << 20)
        copy.seek(0)
        return cast("BinaryIO", copy)

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


def _layer_items(
    stub: Callable[[], Path], entries: Sequence[ManifestEntry], wanted: Sequence[ManifestEntry], sealer: Sealer
) -> Iterator[tuple[Entry, Content]]:
    """Ciphertext at its place, stubs, and every other kind of entry as it is."""
    stored: set[bytes] = set()
    executables = False
    for entry, original in zip(entries, wanted, strict=True):
        if entry.meta.kind is not Kind.FILE:
            yield entry.meta, None  # entries of a tree have no hard links
            continue
        content = sealer.known[original.content]
        if entry.flags and entry.flags & Flag.STORED_X:
            executables, place = True, stored_path(sealer.key, entry)
            if not entry.flags & Flag.MAIN:
                yield Entry(path=entry.path, kind=Kind.FILE, mode=0o755, hardlink=STUB_PATH), None
            if place not in stored:
                stored.add(place)
                yield Entry(path=place, kind=Kind.FILE, mode=0o644, size=content.length), content
        else:
            yield _stored(entry.meta, content.length), content
    if executables:
        yield Entry(path=X_DIRECTORY, kind=Kind.DIR, mode=0o755), None
        path = stub()
        size = path.stat().st_size
        yield Entry(path=STUB_PATH, kind=Kind.FILE, mode=0o755, size=size), FileRange(path=path, length=size)


def _stored(meta: Entry, length: int) -> Entry:
    """The entry of a file's ciphertext at its own path."""
    return Entry(path=meta.path, kind=Kind.FILE, mode=meta.mode, uid=meta.uid, gid=meta.gid, mtime=meta.mtime, size=length)


def _index(
    wanted: Sequence[ManifestEntry], entries: Sequence[ManifestEntry], layer: StoredLayer, key: bytes
) -> Mapping[str, Any]:
    files = {
        original.content.hex(): (layer.offsets[stored_path(key, entry)], entry.meta.size)
        for original, entry in zip(wanted, entries, strict=True)
        if entry.meta.kind is Kind.FILE
    }
    return {"key_id": key_id(key), "files": files}
