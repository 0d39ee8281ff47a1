"""The protected-file stream: what is sealed opens, what is damaged does not, and no key and nonce meets two plaintexts."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify_tasks.fspf import stream
from sconify_tasks.fspf.errors import ContentChangedError, MalformedError
from sconify_tasks.fspf.stream import (
    BLOCK,
    CHUNK,
    FILE_INFO,
    MANIFEST_INFO,
    SEALED_CHUNK,
    open_sealed,
    open_stream,
    plain_size,
    seal,
    seal_file,
    sealed_size,
)

KEY = bytes(range(32))
SIZES = st.one_of(
    st.integers(0, 40),
    st.integers(CHUNK - 2, CHUNK + 2),
    st.integers(2 * CHUNK - 1, 3 * CHUNK + 1),
)


def content(size, seed=b"x"):
    return hashlib.shake_128(seed).digest(size)


def opened(plain, stored, key=KEY):
    salt = hashlib.sha256(plain).digest()
    return b"".join(open_stream(key, FILE_INFO, salt, len(plain), io.BytesIO(stored)))


@given(SIZES)
@settings(max_examples=30, deadline=None)
def test_what_is_sealed_opens_to_the_same_bytes(size):
    plain = content(size)
    stored = seal(KEY, FILE_INFO, plain)
    assert len(stored) == sealed_size(size)
    assert plain_size(len(stored)) == size
    assert opened(plain, stored) == plain
    assert open_sealed(KEY, FILE_INFO, hashlib.sha256(plain).digest(), stored) == plain


@given(st.integers(0, 10 * SEALED_CHUNK))
def test_a_stored_length_has_one_size_or_is_refused(stored):
    try:
        size = plain_size(stored)
    except MalformedError:
        assert all(sealed_size(size) != stored for size in range(max(0, stored - 200), stored + 1))
    else:
        assert sealed_size(size) == stored


@given(SIZES, st.data())
@settings(max_examples=40, deadline=None)
def test_every_truncation_is_refused(size, data):
    plain = content(size)
    stored = seal(KEY, FILE_INFO, plain)
    length = data.draw(st.one_of(st.integers(0, len(stored) - 1), st.sampled_from(range(0, len(stored), SEALED_CHUNK))))
    with pytest.raises(MalformedError) as refusal:
        opened(plain, stored[:length])
    assert refusal.value.code == "truncated"


@given(SIZES, st.data())
@settings(max_examples=40, deadline=None)
def test_every_flipped_bit_is_refused(size, data):
    plain = content(size)
    stored = bytearray(seal(KEY, FILE_INFO, plain))
    bit = data.draw(st.integers(0, 8 * len(stored) - 1))
    stored[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MalformedError) as refusal:
        opened(plain, bytes(stored))
    assert refusal.value.code == "authentication"


@given(SIZES, st.binary(min_size=1, max_size=40))
@settings(max_examples=20, deadline=None)
def test_every_extension_is_refused(size, more):
    plain = content(size)
    with pytest.raises(MalformedError) as refusal:
        opened(plain, seal(KEY, FILE_INFO, plain) + more)
    assert refusal.value.code == "extended"


@given(st.permutations(range(4)))
@settings(max_examples=24, deadline=None)
def test_every_other_order_of_chunks_is_refused(order):
    plain = content(4 * CHUNK)
    stored = seal(KEY, FILE_INFO, plain)
    moved = b"".join(stored[index * SEALED_CHUNK : (index + 1) * SEALED_CHUNK] for index in order)
    if order == [0, 1, 2, 3]:
        assert opened(plain, moved) == plain
        return
    with pytest.raises(MalformedError) as refusal:
        opened(plain, moved)
    assert refusal.value.code == "authentication"


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + CHUNK + 7])
def test_a_file_is_sealed_alike_from_a_buffer_and_from_a_reader(size):
    plain = content(size)
    sealed = seal_file(KEY, io.BytesIO(plain))
    assert b"".join(sealed.chunks) == seal(KEY, FILE_INFO, plain)
    assert (sealed.salt, sealed.size) == (hashlib.sha256(plain).digest(), size)


def test_a_file_is_sealed_from_where_its_reader_stands():
    plain = content(BLOCK + 5)
    reader = io.BytesIO(b"head" + plain)
    reader.seek(4)
    assert b"".join(seal_file(KEY, reader).chunks) == seal(KEY, FILE_INFO, plain)


def test_a_reader_that_returns_less_than_asked_gives_the_same_bytes():
    class Dribbling(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7777) if size >= 0 else size)

    plain = content(2 * CHUNK + 9)
    assert b"".join(seal_file(KEY, Dribbling(plain)).chunks) == seal(KEY, FILE_INFO, plain)


def test_the_same_content_under_another_purpose_or_key_is_another_ciphertext():
    plain = content(100)
    sealed = {seal(KEY, FILE_INFO, plain), seal(KEY, MANIFEST_INFO, plain), seal(bytes(32), FILE_INFO, plain)}
    assert len(sealed) == 3


def test_a_key_of_another_length_is_not_taken():
    with pytest.raises(ValueError, match="32 bytes"):
        seal(b"short", FILE_INFO, b"")


class Changing(io.BytesIO):
    """Content that becomes `later` just before its read number `when`."""

    def __init__(self, first, later, when):
        super().__init__(first)
        self._later, self._left = later, when

    def read(self, size=-1):
        if self._left == 0:
            self.getbuffer()[:] = self._later
        self._left -= 1
        return super().read(size)


@given(position=st.integers(0, 3 * BLOCK + 99), when=st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_a_file_that_changes_while_it_is_sealed_meets_no_key_and_nonce_twice(position, when):
    """Record every encryption of the real cipher: one (key, nonce) never sees two plaintexts."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    seen = {}

    class Recording:
        def __init__(self, key):
            self._key, self._aead = key, AESGCM(key)

        def encrypt_into(self, nonce, data, associated, buffer):
            assert seen.setdefault((self._key, bytes(nonce)), bytes(data)) == bytes(data)
            return self._aead.encrypt_into(nonce, data, associated, buffer)

    def cipher(key, salt, info):
        return Recording(stream.derive(key, salt, info))

    first = content(3 * BLOCK + 100)
    later = bytearray(first)
    later[position] ^= 0xFF
    whole = {hashlib.sha256(state).digest() for state in (first, later)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_cipher", cipher)
        for state in (first, later):
            b"".join(seal_file(KEY, io.BytesIO(state)).chunks)
        known = dict(seen)
        sealed = seal_file(KEY, Changing(first, bytes(later), when))
        with suppress(ContentChangedError):
            b"".join(sealed.chunks)
    assert sealed.salt in whole
    assert seen == known


def test_a_change_between_the_passes_is_refused():
    first = content(2 * BLOCK)
    reads_of_the_first_pass = 4  # a look at the start, two blocks, the end
    sealed = seal_file(KEY, Changing(first, first[:-1] + b"!", reads_of_the_first_pass))
    with pytest.raises(ContentChangedError, match="changed while"):
        b"".join(sealed.chunks)


@pytest.mark.parametrize("change", [-1, 1, CHUNK, -BLOCK])
def test_a_file_that_grows_or_shrinks_between_the_passes_is_refused(change):
    plain = content(2 * BLOCK + 77)
    reader = io.BytesIO(plain)
    sealed = seal_file(KEY, reader)
    position = reader.tell()
    if change < 0:
        reader.truncate(len(plain) + change)
    else:
        reader.seek(0, io.SEEK_END)
        reader.write(bytes(change))
    reader.seek(position)
    with pytest.raises(ContentChangedError, match="changed while"):
        b"".join(sealed.chunks)


def test_a_claimed_size_allocates_nothing():
    tracemalloc.start()
    with pytest.raises(MalformedError):
        list(open_stream(KEY, FILE_INFO, bytes(32), 1 << 60, io.BytesIO(b"short")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_large_file_is_sealed_and_opened_in_little_memory():
    class Zeros(io.RawIOBase):
        """64 MiB that lie nowhere."""

        size, position = 64 << 20, 0

        def read(self, size=-1):
            size = min(size, self.size - self.position)
            self.position += size
            return bytes(size)

        def seek(self, offset, whence=0):
            self.position = offset + (self.position if whence == 1 else 0)
            return self.position

        def tell(self):
            return self.position

    class Chunks(io.RawIOBase):
        """A reader over the chunks as they are made."""

        def __init__(self, chunks):
            self._chunks, self._rest = chunks, b""

        def read(self, size=-1):
            while len(self._rest) < size and (more := next(self._chunks, b"")):
                self._rest += bytes(more)
            taken, self._rest = self._rest[:size], self._rest[size:]
            return taken

    tracemalloc.start()
    sealed = seal_file(KEY, Zeros())
    total = sum(len(chunk) for chunk in open_stream(KEY, FILE_INFO, sealed.salt, sealed.size, Chunks(sealed.chunks)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == sealed.size == 64 << 20
    assert peak < 16 << 20
