"""The selected files of the native image, each read at most once: keyed content id, salt, and what an ELF file needs.

A file is not read at all where the source knows its content id and the step's previous run met the same content at the
same path: then what was found in it then is what would be found now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain
from typing import BinaryIO, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from sconify_cache.store import MissingBlobError
from sconify_tasks.errors import SconifyError
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.image.entry import Entry
from sconify_tasks.image.paths import shown
from sconify_tasks.image.source import ContentIdSource, LearningSource, SourceImage
from sconify_tasks.objects import MAGIC, ObjectFacts, objects_of, read_object
from sconify_tasks.step import Outputs
from sconify_tasks.trees import Trees

_BUFFER = 1 << 17


class Content(Struct, frozen=True, kw_only=True):
    """What was found in one file. `salt` is SHA-256 of a file that is to be encrypted, else empty."""

    content_id: bytes
    salt: bytes
    facts: ObjectFacts | None


class ContentReader(Protocol):
    """Somebody who takes the whole content of some files while they are read anyway."""

    def wants(self, path: bytes, content_id: bytes | None) -> bool:
        """Whether this file must be read; its content id where that is known."""

    def begin(self, path: bytes) -> None:
        """Its blocks follow."""

    def add(self, path: bytes, block: bytes) -> None:
        """The next of them."""

    def end(self, path: bytes) -> None:
        """That was the last."""


class Earlier(Struct, frozen=True, kw_only=True):
    """What the previous run found, by path: content ids, salts of what was encrypted, and ELF files."""

    ids: Mapping[bytes, bytes] = field(default_factory=dict)
    salts: Mapping[bytes, bytes] = field(default_factory=dict)
    objects: Mapping[bytes, ObjectFacts] = field(default_factory=dict)

    def and_plain(self, ids: Mapping[bytes, bytes]) -> Earlier:
        """With files that were read since, and are no ELF files."""
        objects = {path: facts for path, facts in self.objects.items() if path not in ids}
        return replace(self, ids={**self.ids, **ids}, objects=objects)

    def find(self, path: bytes, content_id: bytes | None, *, salted: bool) -> Content | None:
        """What reading the file would find, where that is known."""
        if content_id is None or self.ids.get(path) != content_id:
            return None
        salt = self.salts.get(path, b"") if salted else b""
        return None if salted and not salt else Content(content_id=content_id, salt=salt, facts=self.objects.get(path))


class Scan(Struct, kw_only=True):
    """The trees that were made, and how many files were read for them."""

    secret: list[ManifestEntry] = field(default_factory=list)
    salts: list[ManifestEntry] = field(default_factory=list)
    public: list[ManifestEntry] = field(default_factory=list)
    objects: list[ObjectFacts] = field(default_factory=list)
    read: int = 0


def earlier(previous: Outputs | None, kept: Trees, *, trees: tuple[str, ...] = ("secret", "public")) -> Earlier:
    """What a record of this very version of the step tells; nothing where a blob of it is gone."""
    if previous is not None:
        with suppress(MissingBlobError):
            return Earlier(
                ids={path: content for name in trees for path, content in kept.contents(previous.blobs[name]).items()},
                salts=kept.contents(previous.blobs["salts"]) if "salts" in previous.blobs else {},
                objects={facts.path.encode(): facts for facts in objects_of(previous.facts["objects"])},
            )
    return Earlier()


def scan(
    native: SourceImage,
    roots: Iterable[bytes],
    *,
    key: bytes,
    before: Earlier,
    selected: Callable[[bytes], bool],
    encrypted: Callable[[bytes], bool],
    progress: Callable[[int], None],
    reader: ContentReader | None = None,
) -> Scan:
    """Walk the roots once. SconifyError where a file is no longer what the source said."""
    made = Scan()
    known = native.content_id if isinstance(native, ContentIdSource) else None
    learn = native.learn if isinstance(native, LearningSource) else None
    with native.walk(roots) as stream:
        for entry, content in stream:
            path = entry.path
            if not selected(path):
                continue
            salted = encrypted(path)
            found = Content(content_id=b"", salt=b"", facts=None)
            if content is not None:
                expected = known(path) if known else None
                old = before.find(path, expected, salted=salted)
                listening = reader if reader is not None and reader.wants(path, expected) else None
                if listening is not None:
                    old = None
                made.read += old is None
                found = old or _read(entry, content, key, salted=salted, expected=expected, reader=listening)
                if learn is not None and expected is None:
                    learn(path, found.content_id)
                progress(entry.size)
                if expected is not None and found.content_id != expected:
                    raise SconifyError(f"{shown(path)} changed while it was read", hint="build again when nothing writes to it")
            made.objects += [found.facts] if found.facts else []
            (made.secret if salted else made.public).append(ManifestEntry(meta=entry, content=found.content_id))
            if salted:
                made.salts.append(ManifestEntry(meta=entry, content=found.salt))
    return made


def _read(
    entry: Entry, content: BinaryIO, key: bytes, *, salted: bool, expected: bytes | None, reader: ContentReader | None
) -> Content:
    """All of it in one pass over the content; only its first bytes where they say that there is nothing else to find.

    The source that gave the `expected` id notices by itself a file that changed since.
    """
    from blake3 import blake3

    head = content.read(len(MAGIC))
    vouched = expected is not None and not salted and head != MAGIC
    if vouched and reader is None:
        return Content(content_id=expected or b"", salt=b"", facts=None)
    hasher, digest = blake3(key=key), hashlib.sha256()
    head += content.read(_BUFFER - len(head))
    facts, rest = read_object(entry, head, content)
    if reader is not None:
        reader.begin(entry.path)
    for block in chain((head,), rest):
        if reader is not None:
            reader.add(entry.path, block)
        if not vouched:
            hasher.update(block)
        if salted:
            digest.update(block)
    if reader is not None:
        reader.end(entry.path)
    content_id = expected if vouched and expected is not None else hasher.digest()
    return Content(content_id=content_id, salt=digest.digest() if salted else b"", facts=facts)
