"""verify: the finished image is reopened, and every layer searched. What was to be protected is, or the build fails.

The layers are read as an attacker would read them: from their tars, knowing nothing of how they were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from sconify_cache.digest import Digest
from sconify_cache.keys import content_id_of
from sconify_tasks.assembled import assembled, layer_blobs, not_as_asked
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.manifest import open_manifest
from sconify_tasks.fspf.names import FSPF_DIRECTORY, MANIFEST_PATH, stored_path
from sconify_tasks.fspf.regions import Protection
from sconify_tasks.fspf.verify import verify_stored
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.model import BuiltImage, Layer
from sconify_tasks.image.paths import below, shown
from sconify_tasks.image.search import LayerMember, search_base, search_layers
from sconify_tasks.layer_checks import LayerChecks
from sconify_tasks.layer_reading import LayerReading
from sconify_tasks.step import Context, Outputs


@dataclass(slots=True, kw_only=True)
class Plaintexts:
    """Keyed content ids of everything that is protected, by size: a file of another size need not be read."""

    key: bytes
    by_size: dict[int, set[bytes]] = field(default_factory=dict)
    _of_size: dict[int, bytes] = field(default_factory=dict)

    def add(self, entry: ManifestEntry) -> None:
        """Watch for this file's content. Empty files say nothing."""
        if entry.meta.kind is Kind.FILE and entry.meta.size:
            self.by_size.setdefault(entry.meta.size, set()).add(entry.content)

    def of_size(self, size: int) -> bytes:
        """All ids of a size, in an order of their own; once everything was added. Thousands may share a size: made once."""
        known = self._of_size.get(size)
        if known is None:
            known = self._of_size[size] = b"".join(sorted(self.by_size.get(size, ())))
        return known

    def found(self, member: LayerMember) -> bool:
        """Whether a member is a copy of a protected file."""
        ids = self.by_size.get(member.entry.size)
        if not ids or member.content is None:
            return False
        return bytes.fromhex(content_id_of(self.key, member.content)) in ids


def run(context: Context) -> Outputs:
    """Raise VerificationError unless every protected path is sealed and whole, and no layer of ours has its plaintext."""
    secret, public, libraries = (context.world.trees.get(context.blob(name)) for name in ("secret", "public", "libraries"))
    chosen_plain = {entry.content for entry in (*public, *libraries)}
    watch = Plaintexts(key=context.world.keys.content_id_key())
    for entry in secret:
        # The same content selected as plain, too, is the user's own word.
        if entry.content not in chosen_plain:
            watch.add(entry)
    listed = _check_layers(context, watch, {entry.path for entry in secret})
    published = _published_by_base(context, watch)
    if published:
        context.warn(f"the base image publishes {published} of the protected files' contents anyway")
    # Among the outputs, so that they are kept as long as the record, and made again when one is lost.
    blobs = {f"members{number}": blob for number, blob in enumerate(listed)}
    return Outputs(blobs=blobs, facts={"protected": len(secret), "public": published})


@dataclass(slots=True, kw_only=True)
class _Search:
    """What is asked of every member of our layers, and what of it was not found yet."""

    key: bytes
    binary: bytes
    due: Mapping[bytes, ManifestEntry]
    watch: Plaintexts
    protected: AbstractSet[bytes]
    pending: set[bytes]

    def asks(self, path: bytes, size: int) -> bytes:
        """All that `check` makes of a member of this path and size beyond the member itself."""
        entry = self.due.get(path)
        if entry is not None:
            return b"due %d %d " % (entry.protection, entry.meta.size) + entry.content
        return b"%d %d " % (path in self.protected, path == self.binary) + self.watch.of_size(size)

    def check(self, member: LayerMember) -> None:
        """Raise unless the member is what the manifest says, or nothing that it must not be."""
        path = member.entry.path
        entry = self.due.get(path)
        if entry is not None and not member.entry.hardlink:
            if member.content is None:
                raise not_as_asked(f"{shown(path)} is no file")
            verify_stored(self.key, entry, member.content)
            self.pending.discard(path)
        elif self.watch.found(member):
            raise not_as_asked(f"{shown(path)} in layer {member.layer} has the content of a protected file")
        elif path in self.protected and member.content is not None and not self._is_stub(member):
            raise not_as_asked(f"{shown(path)} in layer {member.layer} is a readable file at a protected path")

    def _is_stub(self, member: LayerMember) -> bool:
        """The runtime at an executable's path, or the sconified ELF at the binary's."""
        path = member.entry.path
        return path == self.binary or (bool(member.entry.hardlink) and below(member.entry.hardlink, FSPF_DIRECTORY))


def _check_layers(context: Context, watch: Plaintexts, protected: set[bytes]) -> list[Digest]:
    """Walk our layers: find the manifest, then verify what it promises, member by member. Return what they hold."""
    image = assembled(context)
    manifest = _find_manifest(image)
    key = context.fspf_key()
    entries = open_manifest(key, bytes.fromhex(context.text("tag")), manifest).entries
    sealed = {entry.path for entry in entries if entry.protection is Protection.ENCRYPTED}
    if missing := protected - sealed:
        raise not_as_asked(f"{shown(min(missing))} was to be protected and is not in the manifest")
    due = {stored_path(key, entry): entry for entry in entries if _is_stored(entry)}
    search = _Search(
        key=key, binary=context.text("binary").encode(), due=due, watch=watch, protected=protected, pending=set(due)
    )
    before = context.previous.blobs if context.previous is not None else {}
    blobs = zip(layer_blobs(context), image.layers, strict=True)
    listed = [
        _check_layer(context, search, blob, layer, before.get(f"members{number}")) for number, (blob, layer) in enumerate(blobs)
    ]
    if search.pending:
        raise not_as_asked(f"{shown(min(search.pending))} is missing in the layers")
    return listed


def _check_layer(context: Context, search: _Search, blob: Digest, layer: Layer, before: Digest | None) -> Digest:
    """Check what in a layer was not found good when the same was asked: nothing, the members that changed, or all."""
    checks = LayerChecks(world=context.world, key_id=context.text("key_id"), asks=search.asks)
    known = checks.passed(blob)
    if known is not None:
        context.count("layers verified before")
        listing, held = known
    else:
        context.count("layers searched")
        reading = LayerReading(layer=layer, checks=checks, before=checks.listed(before))
        for member in reading.changed():
            context.progress(member.entry.size, layer.size)
            search.check(member)
        held, listing = reading.held, checks.keep(blob, reading.held)
        if reading.passed_over:
            context.count("members verified before", reading.passed_over)
    search.pending.difference_update(member.path for member in held if member.size >= 0)
    return listing


def _find_manifest(image: BuiltImage) -> bytes:
    # The uppermost counts, and is the one that is made last: layers below it are not read for it.
    for member in search_layers(reversed(image.layers)):
        if member.entry.path == MANIFEST_PATH and member.content is not None:
            return member.content.read()
    raise not_as_asked("the image has no manifest")


def _is_stored(entry: ManifestEntry) -> bool:
    if entry.meta.kind is not Kind.FILE:
        return False
    return entry.protection is Protection.ENCRYPTED or not (entry.flags and entry.flags & Flag.MAIN)


def _published_by_base(context: Context, watch: Plaintexts) -> int:
    """How many protected contents any layer of the base has; they are public whatever we do."""
    base = context.base()
    if not base.diff_ids or not watch.by_size:
        return 0
    return sum(1 for member in search_base(base) if watch.found(member))
