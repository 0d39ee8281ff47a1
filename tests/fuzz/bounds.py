"""Bounds for what reads foreign bytes: processor time, and memory of this process. A breach raises; nothing is left set."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 5
MEMORY = 256 << 20


@contextmanager
def bounded(*, seconds: int = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Run a block in `seconds` of processor time, and with `memory` bytes beyond what is mapped (else MemoryError)."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    began = time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    took = time.process_time() - began
    assert took < seconds, f"{took:.1f} s of processor time"
