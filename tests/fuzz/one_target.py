"""Fuzz one reader in a process of its own, within bounds: `python -m fuzz.one_target NAME EXAMPLES SEED`.

A crash, an example of more than five seconds of processor time, and more than 256 MiB beyond what the process had before
end it with the input that did it, made small by Hypothesis.
"""

from __future__ import annotations

import resource
import shutil
import sys
from contextlib import suppress

from fuzz.bounds import bounded
from fuzz.mutations import damaged
from fuzz.scratch import scratch
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, seed, settings

from sconify_tasks.errors import SconifyError


def fuzz(name: str, examples: int, number: int) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    for valid in seeds:
        target.run(valid)  # valid ones are accepted: else all that follows would test the first check only

    @seed(number)
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damaged(seeds))
    def any_input(data: bytes) -> None:
        with bounded(), suppress(SconifyError):
            target.run(data)

    # A loop that never ends is no example that Hypothesis could make smaller: the kernel ends it.
    resource.setrlimit(resource.RLIMIT_CPU, (60 + examples // 5, resource.RLIM_INFINITY))
    any_input()


if __name__ == "__main__":
    try:
        fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    finally:
        shutil.rmtree(scratch())
