"""Trees: what is taken of one without making its entries is what its entries say."""

from __future__ import annotations

import pytest

from sconify_tasks.fspf.entries import ManifestEntry
from sconify_tasks.fspf.errors import MalformedError
from sconify_tasks.fspf.tree import contents_of, decode_tree, encode_tree
from sconify_tasks.image.entry import Entry, Kind

XATTRS = ((b"security.capability", b"\x01\x00\xff"), (b"user.long", b"x" * 300))
ENTRIES = (
    ManifestEntry(meta=Entry(path=b"/a", kind=Kind.DIR, mode=0o755, xattrs=XATTRS)),
    ManifestEntry(meta=Entry(path=b"/a/file", kind=Kind.FILE, size=7, mtime=-5), content=b"1" * 32),
    ManifestEntry(meta=Entry(path=b"/a/link", kind=Kind.SYMLINK, target=b"file")),
    ManifestEntry(meta=Entry(path=b"/a/null", kind=Kind.CHAR, rdev=(1, 3))),
    ManifestEntry(meta=Entry(path=b"/a/pipe", kind=Kind.FIFO)),
    ManifestEntry(meta=Entry(path=b"/a/with", kind=Kind.FILE, size=1 << 40, xattrs=XATTRS), content=b"2" * 32),
)


def test_a_tree_of_every_kind_comes_back_and_so_do_its_contents():
    data = encode_tree(ENTRIES)
    assert decode_tree(data) == ENTRIES
    assert contents_of(data) == {b"/a/file": b"1" * 32, b"/a/with": b"2" * 32}


def test_a_tree_that_is_cut_anywhere_is_malformed():
    data = encode_tree(ENTRIES)
    for length in range(len(data)):
        with pytest.raises(MalformedError):
            decode_tree(data[:length])
