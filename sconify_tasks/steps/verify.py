"""verify: the finished image is reopened, and every layer searched. What was to be protected is, or the build fails.

The layers are read as an attacker would read them: from their tars, knowing nothing of how they were made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from sconify_tasks.assembled import assembled
from sconify_tasks.errors import VerificationError
from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.manifest import open_manifest
from sconify_tasks.fspf.names import FSPF_DIRECTORY, MANIFEST_PATH, stored_path
from sconify_tasks.fspf.regions import Protection
from sconify_tasks.fspf.verify import verify_stored
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.model import BuiltImage
from sconify_tasks.image.paths import below, shown
from sconify_tasks.image.search import LayerMember, search_base, search_built, search_layers
from sconify_tasks.step import Context, Outputs

_BUFFER = 1 << 20


@dataclass(slots=True, kw_only=True)
class Plaintexts:
    """Keyed content ids of everything that is protected, by size: a file of another size need not be read."""

    key: bytes
    by_size: dict[int, set[bytes]] = field(default_factory=dict)

    def add(self, entry: ManifestEntry) -> None:
        """Watch for this file's content. Empty files say nothing."""
        if entry.meta.kind is Kind.FILE and entry.meta.size:
            self.by_size.setdefault(entry.meta.size, set()).add(entry.content)

    def found(self, member: LayerMember) -> bool:
        """Whether a member is a copy of a protected file."""
        ids = self.by_size.get(member.entry.size)
        if not ids or member.content is None:
            return False
        return _content_id(self.key, member.content) in ids


def run(context: Context) -> Outputs:
    """Raise VerificationError unless every protected path is sealed and whole, and no layer of ours has its plaintext."""
    secret, public, libraries = (context.world.trees.get(context.blob(name)) for name in ("secret", "public", "libraries"))
    chosen_plain = {entry.content for entry in (*public, *libraries)}
    watch = Plaintexts(key=context.world.keys.content_id_key())
    for entry in secret:
        # The same content selected as plain, too, is the user's own word.
        if entry.content not in chosen_plain:
            watch.add(entry)
    _check_layers(context, watch, {entry.path for entry in secret})
    published = _published_by_base(context, watch)
    if published:
        context.warn(f"the base image publishes {published} of the protected files' contents anyway")
    return Outputs(facts={"protected": len(secret), "public": published})


def _check_layers(context: Context, watch: Plaintexts, protected: set[bytes]) -> None:
    """Walk our layers: find the manifest, then verify what it promises, member by member."""
    image = assembled(context)
    manifest = _find_manifest(image)
    key = context.fspf_key()
    entries = open_manifest(key, bytes.fromhex(context.text("tag")), manifest).entries
    sealed = {entry.path for entry in entries if entry.protection is Protection.ENCRYPTED}
    if missing := protected - sealed:
        raise _refused(f"{shown(min(missing))} was to be protected and is not in the manifest")
    due = {stored_path(key, entry): entry for entry in entries if _is_stored(entry)}
    pending = dict(due)
    total = sum(layer.size for layer in image.layers)
    for member in search_built(image):
        context.progress(member.entry.size, total)
        path = member.entry.path
        entry = due.get(path)
        if entry is not None and not member.entry.hardlink:
            if member.content is None:
                raise _refused(f"{shown(path)} is no file")
            verify_stored(key, entry, member.content)
            pending.pop(path, None)
        elif watch.found(member):
            raise _refused(f"{shown(path)} in layer {member.layer} has the content of a protected file")
        elif path in protected and member.content is not None and not _is_stub(member, context):
            raise _refused(f"{shown(path)} in layer {member.layer} is a readable file at a protected path")
    if pending:
        raise _refused(f"{shown(min(pending))} is missing in the layers")


def _find_manifest(image: BuiltImage) -> bytes:
    # The uppermost counts, and is the one that is made last: layers below it are not read for it.
    for member in search_layers(reversed(image.layers)):
        if member.entry.path == MANIFEST_PATH and member.content is not None:
            return member.content.read()
    raise _refused("the image has no manifest")


def _is_stored(entry: ManifestEntry) -> bool:
    if entry.meta.kind is not Kind.FILE:
        return False
    return entry.protection is Protection.ENCRYPTED or not (entry.flags and entry.flags & Flag.MAIN)


def _is_stub(member: LayerMember, context: Context) -> bool:
    """The runtime at an executable's path, or the sconified ELF at the binary's."""
    path = member.entry.path
    return path == context.text("binary").encode() or (
        bool(member.entry.hardlink) and below(member.entry.hardlink, FSPF_DIRECTORY)
    )


def _published_by_base(context: Context, watch: Plaintexts) -> int:
    """How many protected contents any layer of the base has; they are public whatever we do."""
    base = context.base()
    if not base.diff_ids or not watch.by_size:
        return 0
    return sum(1 for member in search_base(base) if watch.found(member))


def _content_id(key: bytes, content: BinaryIO) -> bytes:
    from blake3 import blake3

    hasher = blake3(key=key)
    while block := content.read(_BUFFER):
        hasher.update(block)
    return hasher.digest()


def _refused(message: str) -> VerificationError:
    return VerificationError(
        f"the finished image is not what was asked for: {message}", hint="this is a defect: please report it"
    )
