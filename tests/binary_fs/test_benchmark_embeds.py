"""What benchmarks/embed.py measures is an embedding, also the second time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from sconify_tasks.binary_fs.filling import known_contents
from sconify_tasks.binary_fs.index import CHUNK
from sconify_tasks.elf import sections
from sconify_tasks.sconified import FILE_SYSTEM

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "sconify_tasks" / "runtime" / "bin" / "runtime-amd64"


def embedded(path: Path) -> dict[bytes, bytes]:
    """The contents in a sconified ELF by the digests of their chunks, joined."""
    (section,) = (section for section in sections(path) if section.name == FILE_SYSTEM)
    data = path.read_bytes()
    ranges = known_contents(path, section.offset)
    return {digests: data[found.offset : found.offset + found.length] for digests, found in ranges.items()}


def by_chunks(content: bytes) -> bytes:
    return b"".join(hashlib.sha256(content[at : at + CHUNK]).digest() for at in range(0, len(content), CHUNK))


def test_the_benchmark_embeds_every_file_and_the_one_that_changed(tmp_path):
    tree, work = tmp_path / "tree", tmp_path / "work"
    tree.mkdir()
    work.mkdir()
    for number in range(5):
        (tree / f"file{number}").write_bytes(bytes([number]) * (number * 70_000 + 1))
    for number, content in enumerate((b"first", b"second" * 50_000)):
        (tree / "file3").write_bytes(content)
        subprocess.run([sys.executable, ROOT / "benchmarks" / "embed_tree.py", tree, work, RUNTIME], check=True)
        made = work / f"sconified-{number:03}"
        assert embedded(made) == {by_chunks(data): data for data in (p.read_bytes() for p in tree.iterdir())}
