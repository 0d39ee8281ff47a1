"""The chunk digests of embedded files, taken while their content is read anyway; large blocks are hashed on threads."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Self

from sconify_tasks.ahead import Ahead, Promise
from sconify_tasks.binary_fs.index import CHUNK

# Each of what a scan reads at once: what waits for a thread is all that is in memory.
_BLOCKS = 8


class ChunkDigests:
    """SHA-256 of every chunk of the files that `wanted` names.

    What has its content id among `known`, or its path in `before`, is not wanted. A scan's `ContentReader`.
    """

    def __init__(
        self, known: Mapping[bytes, bytes], wanted: Callable[[bytes], bool], *, before: Mapping[bytes, bytes] | None = None
    ) -> None:
        self._known, self._wanted = known, wanted
        self._before = before or {}
        self._found: dict[bytes, list[bytes | Promise[bytes]]] = {}
        self._rest = bytearray()
        self._threads: Ahead[bytes] = Ahead()
        self._ahead: deque[Promise[bytes]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._threads.close()

    def wants(self, path: bytes, content_id: bytes | None) -> bool:
        """Whether a file must be read for its digests."""
        return self._wanted(path) and path not in self._before and content_id not in self._known

    def begin(self, path: bytes) -> None:
        """The blocks of this file follow; they replace what was found before."""
        self._found[path] = []
        self._rest.clear()

    def add(self, path: bytes, block: bytes) -> None:
        """The next bytes of the file, in blocks of any length."""
        if self._rest or len(block) % CHUNK:
            self._rest += block
            whole = len(self._rest) - len(self._rest) % CHUNK
            block = bytes(self._rest[:whole])
            del self._rest[:whole]
        if block:
            self._submit(path, block)

    def end(self, path: bytes) -> None:
        """The file has no more bytes."""
        if self._rest:
            self._submit(path, bytes(self._rest))
            self._rest.clear()

    def of(self, path: bytes, content_id: bytes) -> bytes:
        """Digests of a file, joined: found while it was read, or known from before."""
        found = self._found.get(path)
        if found is not None:
            return b"".join(block if isinstance(block, bytes) else self._threads.result(block) for block in found)
        before = self._before.get(path)
        return self._known[content_id] if before is None else before

    def _submit(self, path: bytes, block: bytes) -> None:
        if len(block) <= CHUNK:  # a thread would cost more than it saves
            self._found[path].append(_hash(block))
            return
        if len(self._ahead) == _BLOCKS:
            self._threads.result(self._ahead.popleft())
        promise = self._threads.do(partial(_hash, block))
        self._ahead.append(promise)
        self._found[path].append(promise)


def encode_digests(digests: Mapping[bytes, bytes]) -> bytes:
    """Digests by content id, as a blob."""
    return json.dumps({content_id.hex(): joined.hex() for content_id, joined in sorted(digests.items())}).encode()


def decode_digests(data: bytes) -> dict[bytes, bytes]:
    """The inverse."""
    return {bytes.fromhex(content_id): bytes.fromhex(joined) for content_id, joined in json.loads(data).items()}


def _hash(block: bytes) -> bytes:
    view = memoryview(block)
    return b"".join(hashlib.sha256(view[at : at + CHUNK]).digest() for at in range(0, len(block), CHUNK))
