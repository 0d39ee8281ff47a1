"""One server for the tests that leave it as it is."""

from __future__ import annotations

import pytest
from cas.cas_support import start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = start_server(tmp_path_factory.mktemp("cas-state"))
    yield running
    running.stop()
