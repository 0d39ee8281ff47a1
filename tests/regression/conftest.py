from __future__ import annotations

from main_job.conftest import bridge, cas, containers, workshop

__all__ = ["bridge", "cas", "containers", "workshop"]
