from __future__ import annotations

from build.conftest import native, place, program  # noqa: F401 - fixtures
