from __future__ import annotations

from build.conftest import native, place, program

__all__ = ["native", "place", "program"]
