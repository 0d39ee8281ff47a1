"""What `embed.py` measures: a folder becomes the sconified ELF file, as the steps do it; its digests as a layer come after.

Run again, it takes what it can from before. As in the store, what is made is a new file beside the earlier ones: to replace
one, ext4 would write it to the disk first.

Usage: python benchmarks/embed_tree.py TREE WORK RUNTIME
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sconify_cache.digest import Digest
from sconify_cache.stat import StatCache
from sconify_tasks.binary_fs.digests import ChunkDigests, decode_digests, encode_digests
from sconify_tasks.binary_fs.filling import Filling, known_contents
from sconify_tasks.binary_fs.section import outline
from sconify_tasks.binary_fs.watching import Watched, contents
from sconify_tasks.fspf.regions import Protection, Region, Regions
from sconify_tasks.image.entry import Kind
from sconify_tasks.image.rootfs import RootfsSource
from sconify_tasks.scan import Earlier, scan
from sconify_tasks.sconified import FILE_SYSTEM, section_offset, write_sconified

KEY = bytes(32)


def main() -> None:
    """Embed TREE; WORK holds what the run before left."""
    tree, work, runtime = (Path(argument) for argument in sys.argv[1:4])
    remembered, digested = work / "files.json", work / "digests.json"
    earlier = sorted(work.glob("sconified-*"))
    files = json.loads(remembered.read_text()) if remembered.exists() else {}
    cache = StatCache(
        work / "stat.db",
        generation=Digest("0" * 64),
        roots=(bytes(tree),),
        now=lambda: time.time_ns() + 3600 * 10**9,  # files just written are not trusted for a moment; the benchmark can't wait
    )
    seen = Watched(lambda _: True)
    native = RootfsSource(tree, stat_cache=cache, content_key=KEY, watcher=seen)
    _ = native.identity
    known = {path.encode(): bytes.fromhex(name) for path, name in files.items()}
    with ChunkDigests(
        decode_digests(digested.read_bytes()) if digested.exists() else {}, lambda _: True, before=seen.digests()
    ) as reader:
        found = scan(
            native,
            [b"/"],
            key=KEY,
            before=Earlier(ids=known).and_plain(contents(native, seen.plain())),
            selected=lambda path: path != b"/",
            encrypted=lambda _: False,
            progress=lambda _: None,
            reader=reader,
        )
        embedded = [entry for entry in found.public if entry.meta.kind is Kind.FILE]
        digests = {entry.content: reader.of(entry.path, entry.content) for entry in embedded}
    section = outline(
        regions=Regions.of([Region(path=b"/", protection=Protection.AUTHENTICATED)]),
        visible=[entry for entry in found.public if entry.meta.kind is not Kind.FILE],
        embedded=embedded,
        digests=digests,
    )
    before = known_contents(earlier[-1], section_offset(runtime, {FILE_SYSTEM: b""}, FILE_SYSTEM)) if earlier else {}
    filling = Filling(outline=section, native=lambda: native, known=before)
    with (work / f"sconified-{len(earlier):03}").open("xb") as out:
        write_sconified(runtime, out, {FILE_SYSTEM: filling})
    cache.save()
    digested.write_bytes(encode_digests(digests))
    remembered.write_text(json.dumps({entry.path.decode(): entry.content.hex() for entry in embedded}))


if __name__ == "__main__":
    main()
