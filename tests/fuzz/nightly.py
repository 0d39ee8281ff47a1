"""Fuzz for long, one reader at a time: `PYTHONPATH=tests python -m fuzz.nightly SECONDS [NAME…]`, with atheris.

atheris is guided by coverage and needs the extra `fuzz`. What it finds is left as `crash-…` in the current folder, and the
exit code is that of the first reader that failed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

MEMORY = 2048  # MiB: libFuzzer's own limit, its corpus and instrumented code included


def fuzz(name: str, seconds: str) -> None:
    """Run one reader in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["sconify_tasks", "sconify_cache", "tarfile"]):
        from fuzz.scratch import scratch
        from fuzz.targets import TARGETS

    from sconify_tasks.errors import SconifyError

    target = TARGETS[name]
    corpus = scratch() / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(seed)

    def one_input(data: bytes) -> None:
        try:
            target.run(data)
        except SconifyError:
            return

    limits = [f"-max_total_time={seconds}", "-timeout=20", f"-rss_limit_mb={MEMORY}", "-max_len=65536", "-print_final_stats=1"]
    try:
        atheris.Setup([sys.argv[0], str(corpus), *limits], one_input)
        atheris.Fuzz()
    finally:
        shutil.rmtree(scratch(), ignore_errors=True)


def main(seconds: str, names: list[str]) -> int:
    """Fuzz each reader in a process of its own."""
    from fuzz.targets import TARGETS

    for name in names or sorted(TARGETS):
        done = subprocess.run([sys.executable, "-m", "fuzz.nightly", "--one", name, seconds], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        fuzz(sys.argv[2], sys.argv[3])
    else:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
