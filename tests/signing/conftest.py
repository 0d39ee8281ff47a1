from __future__ import annotations

from importlib.util import find_spec

import pytest
from build.conftest import native, place, program
from parts.need import missing
from signing.keys import MODULE, SigningKey, SoftToken, make_key, make_token

__all__ = ["native", "place", "program"]


@pytest.fixture(scope="session")
def key(need, tmp_path_factory) -> SigningKey:
    return make_key(need("openssl"), tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="session")
def other_key(need, tmp_path_factory) -> SigningKey:
    return make_key(need("openssl"), tmp_path_factory.mktemp("other-key"))


@pytest.fixture(scope="session")
def token_folder(need, key, tmp_path_factory) -> SoftToken:
    return make_token(need, tmp_path_factory.mktemp("token"), key)


@pytest.fixture
def token(token_folder, monkeypatch) -> SoftToken:
    """The token, as this process and what it starts find it."""
    if find_spec("pkcs11") is None:
        missing("the package python-pkcs11")
    for name, value in token_folder.variables.items():
        monkeypatch.setenv(name, value)
    assert MODULE in token_folder.uri
    return token_folder
