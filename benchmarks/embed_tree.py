"""What `embed.py` measures: a folder becomes the section and the ELF file, as the steps do it.

Run again, it takes what it can from before.

Usage: python benchmarks/embed_tree.py TREE WORK RUNTIME
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sconify_cache.digest import Digest
from sconify_cache.stat import StatCache
from sconify_tasks.binary_fs.index import Extent
from sconify_tasks.binary_fs.section import Source, Staging, known_sources, write_section
from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.regions import Protection, Region, Regions
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.rootfs import RootfsSource
from sconify_tasks.scan import Content, Earlier, scan
from sconify_tasks.sconified import FILE_SYSTEM, write_sconified

KEY = bytes(32)


def main() -> None:
    """Embed TREE; WORK holds what the run before left."""
    tree, work, runtime = (Path(argument) for argument in sys.argv[1:4])
    remembered = work / "index.json"
    before = json.loads(remembered.read_text()) if remembered.exists() else {"files": {}, "extents": {}}
    cache = StatCache(
        work / "stat.db",
        generation=Digest("0" * 64),
        roots=(bytes(tree),),
        now=lambda: time.time_ns() + 3600 * 10**9,  # files just written are not trusted for a moment; the benchmark can't wait
    )
    native = RootfsSource(tree, stat_cache=cache, content_key=KEY)
    _ = native.identity
    known = {
        path.encode(): Content(content_id=bytes.fromhex(name), salt=b"", facts=None) for path, name in before["files"].items()
    }
    found = scan(
        native,
        [b"/"],
        key=KEY,
        before=Earlier(contents=known),
        selected=lambda path: path != b"/",
        encrypted=lambda _: False,
        progress=lambda _: None,
    )
    files = [entry for entry in found.public if entry.meta.kind is Kind.FILE]
    sources = _sources(before["extents"], work, native, files)
    written = write_section(
        work / "section.new",
        regions=Regions.of([Region(path=b"/", protection=Protection.AUTHENTICATED)]),
        visible=[entry for entry in found.public if entry.meta.kind is not Kind.FILE],
        embedded=files,
        sources=sources,
    )
    (work / "section.new").rename(work / "section")
    write_sconified(runtime, work / "sconified", {FILE_SYSTEM: work / "section"})
    cache.save()
    extents = {name.hex(): (extent.offset, extent.size, extent.digests.hex()) for name, extent in written.extents.items()}
    names = {entry.path.decode(): entry.content.hex() for entry in files}
    remembered.write_text(json.dumps({"files": names, "extents": extents}))


def _sources(
    extents: dict[str, tuple[int, int, str]], work: Path, native: RootfsSource, files: list[ManifestEntry]
) -> dict[bytes, Source]:
    old = {
        bytes.fromhex(name): Extent(offset=offset, size=size, digests=bytes.fromhex(digests))
        for name, (offset, size, digests) in extents.items()
    }
    sources = known_sources(work / "section", old)
    missing = {entry.path: entry.content for entry in files if entry.content not in sources}
    staging = Staging(path=work / "staged", key=KEY)
    with staging.open() as out, native.walk(sorted(missing)) as stream:
        for entry, content in stream:
            if content is not None:
                sources[missing[entry.path]] = staging.add(entry, content, missing[entry.path], out, vouched=True)
    return sources


if __name__ == "__main__":
    main()
