"""One protected file: chunks of 64 KiB under AES-256-GCM, keyed by the content's own digest (docs/formats.md section 1).

The nonce is a counter, so a (key, nonce) pair is safe only because the key depends on the content. Hence the invariant
of this file: a byte is encrypted only under the digest of the very content that it belongs to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from sconify_tasks.fspf.errors import ContentChangedError, MalformedError
from sconify_tasks.hkdf import hkdf

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 65_536
TAG = 16
SEALED_CHUNK = CHUNK + TAG
KEY_SIZE = 32
BLOCK = 16 * CHUNK
"""What is read, hashed and encrypted at once; a file of at most one block never leaves its buffer."""

FILE_INFO = b"sconify/file/1"
MANIFEST_INFO = b"sconify/manifest/1"


class SealedFile(Struct, frozen=True, kw_only=True):
    """The salt and size for the manifest, and the stored bytes. `chunks` can be walked once."""

    salt: bytes
    size: int
    chunks: Iterator[bytes | bytearray]


def sealed_size(size: int) -> int:
    """Return the stored length of a file of `size` bytes."""
    return size + TAG * max(1, -(-size // CHUNK))


def plain_size(stored: int) -> int:
    """Return the size of the file whose stored length is `stored`; MalformedError where no file has that length."""
    last = stored % SEALED_CHUNK
    if stored < TAG or 0 < last < TAG or (last == TAG and stored != TAG):
        raise MalformedError("truncated", f"no sealed file is {stored} bytes long")
    return stored - TAG * -(-stored // SEALED_CHUNK)


def derive(fspf_key: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) of at most one block."""
    if len(fspf_key) != KEY_SIZE:
        raise ValueError(f"an fspf key has {KEY_SIZE} bytes, not {len(fspf_key)}")
    return hkdf(fspf_key, salt=salt, info=info, length=length)


def seal(fspf_key: bytes, info: bytes, data: bytes) -> bytes:
    """Encrypt one buffer. The salt is SHA-256 of that buffer."""
    aead = _cipher(fspf_key, hashlib.sha256(data).digest(), info)
    return bytes(_seal_block(aead, memoryview(data), 0, len(data)))


def seal_file(fspf_key: bytes, reader: BinaryIO) -> SealedFile:
    """Encrypt what `reader` yields, from where it stands to its end. More than one block needs a seekable reader.

    A small file is hashed and encrypted from one buffer. A large one is read twice: the first pass takes its digest and a
    digest of every block, the second encrypts a block only after comparing it, so content that changes in between raises
    ContentChangedError before anything of it meets the key.
    """
    first = _read_exactly(reader, BLOCK + 1)
    if len(first) <= BLOCK:
        salt = hashlib.sha256(first).digest()
        sealed = _seal_block(_cipher(fspf_key, salt, FILE_INFO), memoryview(first), 0, len(first))
        return SealedFile(salt=salt, size=len(first), chunks=iter((sealed,)))
    reader.seek(-len(first), 1)
    start = reader.tell()
    salt, size, blocks = _first_pass(reader)
    reader.seek(start)
    return SealedFile(salt=salt, size=size, chunks=_second_pass(_cipher(fspf_key, salt, FILE_INFO), reader, size, blocks))


def open_sealed(fspf_key: bytes, info: bytes, salt: bytes, stored: bytes) -> bytes:
    """Decrypt and verify one buffer; the inverse of `seal`."""
    import io

    return b"".join(open_stream(fspf_key, info, salt, plain_size(len(stored)), io.BytesIO(stored)))


def open_stream(fspf_key: bytes, info: bytes, salt: bytes, size: int, reader: BinaryIO) -> Iterator[bytes]:
    """Yield the plaintext chunk by chunk, each authenticated; the whole is verified only when the iterator ends.

    Raises MalformedError: truncated, extended, authentication (a flipped, moved or foreign chunk), digest.
    """
    from cryptography.exceptions import InvalidTag

    aead, digest, done = _cipher(fspf_key, salt, info), hashlib.sha256(), 0
    for index in range(max(1, -(-size // CHUNK))):
        length = min(CHUNK, size - done)
        stored = _read_exactly(reader, length + TAG)
        if len(stored) < length + TAG:
            raise MalformedError("truncated", f"a sealed file of {size} bytes ends inside chunk {index}")
        done += length
        try:
            plain = aead.decrypt(_nonce(index, last=done == size), stored, None)
        except InvalidTag:
            raise MalformedError("authentication", f"chunk {index} of a sealed file does not authenticate") from None
        digest.update(plain)
        yield plain
    if reader.read(1):
        raise MalformedError("extended", f"bytes follow the last chunk of a sealed file of {size} bytes")
    if digest.digest() != salt:
        raise MalformedError("digest", "the content of a sealed file does not have the digest that its key was made from")


def _cipher(fspf_key: bytes, salt: bytes, info: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(derive(fspf_key, salt, info))


def _nonce(index: int, *, last: bool) -> bytes:
    return index.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _seal_block(aead: AESGCM, block: memoryview, start: int, size: int) -> bytearray:
    """Encrypt the chunks of `block`, which begins at `start` (a multiple of BLOCK) of a file of `size` bytes."""
    if start == 0 and len(block) == size <= CHUNK:
        return bytearray(aead.encrypt(_nonce(0, last=True), block, None))
    out = bytearray(sealed_size(len(block)))
    view, index = memoryview(out), start // CHUNK
    for position in range(0, max(1, len(block)), CHUNK):
        chunk = block[position : position + CHUNK]
        target = position // CHUNK * SEALED_CHUNK
        last = start + position + len(chunk) == size
        aead.encrypt_into(_nonce(index, last=last), chunk, None, view[target : target + len(chunk) + TAG])
        index += 1
    return out


def _first_pass(reader: BinaryIO) -> tuple[bytes, int, list[bytes]]:
    from blake3 import blake3

    whole, size, blocks = hashlib.sha256(), 0, []
    while block := _read_exactly(reader, BLOCK):
        whole.update(block)
        blocks.append(blake3(block).digest())
        size += len(block)
    return whole.digest(), size, blocks


def _second_pass(aead: AESGCM, reader: BinaryIO, size: int, blocks: list[bytes]) -> Iterator[bytearray]:
    from blake3 import blake3

    for number, expected in enumerate(blocks):
        start = number * BLOCK
        block = _read_exactly(reader, min(BLOCK, size - start))
        # Before encryption, not after: two contents under one key and nonce would give away their difference.
        if blake3(block).digest() != expected:
            raise ContentChangedError
        yield _seal_block(aead, memoryview(block), start, size)
    if reader.read(1):
        raise ContentChangedError


def _read_exactly(reader: BinaryIO, length: int) -> bytes:
    """Read until `length` bytes or the end: raw and network streams may return less than asked."""
    data = reader.read(length)
    while 0 < len(data) < length:
        more = reader.read(length - len(data))
        if not more:
            break
        data += more
    return data
