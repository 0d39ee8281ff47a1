"""Who waits for a file's lock, as the kernel has it: proc(5), /proc/locks."""

from __future__ import annotations

from pathlib import Path


def waiting_for_locks(mark: str) -> int:
    """How many wait whose line has this mark: a process ` PID `, or a file `:INODE `. `->` is before each who waits."""
    return sum("->" in line and mark in line for line in Path("/proc/locks").read_text().splitlines())
