"""Our derivation of one block is the library's HKDF-SHA256."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from sconify_tasks.hkdf import hkdf


@given(
    key=st.binary(min_size=1, max_size=64), salt=st.binary(max_size=80), info=st.binary(max_size=80), length=st.integers(1, 32)
)
def test_it_derives_what_the_library_derives(key, salt, info, length):
    expected = HKDF(algorithm=SHA256(), length=length, salt=salt or None, info=info).derive(key)
    assert hkdf(key, salt=salt, info=info, length=length) == expected


@pytest.mark.parametrize("length", [0, 33])
def test_more_than_one_block_or_nothing_is_refused(length):
    with pytest.raises(ValueError, match="one block"):
        hkdf(b"key", info=b"", length=length)
