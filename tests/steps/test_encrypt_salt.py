"""The key of a file's ciphertext is made of the bytes that are encrypted: bytes that were not the ones looked at are refused."""

from __future__ import annotations

import hashlib
import io

import pytest
from parts.images import file

from sconify_tasks.errors import SconifyError
from sconify_tasks.steps.encrypt import Sealer

LOOKED_AT = b"what was hashed and went into the manifest"


@pytest.mark.parametrize("at_encryption", [LOOKED_AT[::-1], LOOKED_AT[:-1], LOOKED_AT + b"!", b""])
def test_a_file_that_is_another_one_when_it_is_encrypted_is_refused_and_nothing_of_it_written(tmp_path, at_encryption):
    entry, _ = file(b"/app/secret", LOOKED_AT)
    salts = {entry.path: hashlib.sha256(LOOKED_AT).digest()}
    sealer = Sealer(key=bytes(32), path=tmp_path / "ciphertext", salts=salts)
    out = io.BytesIO()
    with pytest.raises(SconifyError, match="/app/secret changed while it was read"):
        sealer.seal(b"id", entry, io.BytesIO(at_encryption), out)
    assert out.getvalue() == b""
    assert sealer.known == {}
    sealer.seal(b"id", entry, io.BytesIO(LOOKED_AT), out)
    assert sealer.known.keys() == {b"id"}
