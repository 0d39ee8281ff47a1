"""Damage for valid objects: what an attacker or a bad disk does to bytes, sizes and nesting."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

_WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_NUMBERS = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    4095,
    4096,
    65_535,
    65_536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
_NESTS = ((b"[", b"]"), (b'{"a":', b"}"), (b"{a: ", b"}"), (b"- ", b""), (b"[", b""))
_WORDS = (
    b"\0",
    b"\n",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b"9" * 5000,
    b"/../",
    b".wh.",
    b"*a",
    b"&a ",
    b"${X:-",
)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with one to six changes, or now and then nothing but random bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=2000))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        _damage(draw, data)
    return bytes(data)


def _damage(draw: st.DrawFn, data: bytearray) -> None:  # noqa: C901 - one case for each kind of damage
    at = draw(st.integers(0, max(0, len(data) - 1)))
    end = min(len(data), at + draw(st.sampled_from((1, 2, 8, 64, 512, 4096))))
    match draw(st.sampled_from(("flip", "number", "insert", "delete", "repeat", "copy", "cut", "nest", "word", "digit"))):
        case "flip" if data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        case "number":
            width = draw(st.sampled_from(tuple(_WIDTHS)))
            number = draw(st.sampled_from(_NUMBERS)) % (1 << 8 * width)
            data[at : at + width] = struct.pack(draw(st.sampled_from("<>")) + _WIDTHS[width], number)
        case "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=64))
        case "delete":
            del data[at:end]
        case "repeat":
            data[at:at] = data[at:end] * draw(st.sampled_from((1, 2, 50)))
        case "copy":
            to = draw(st.integers(0, len(data)))
            data[to : to + end - at] = data[at:end]
        case "cut":
            del data[at:]
        case "nest":
            opening, closing = draw(st.sampled_from(_NESTS))
            # about the recursion limit: what a parser still takes, whoever shows or walks it may not
            depth = draw(st.sampled_from((3, 40, 300, 700, 900, 940, 960, 980, 990, 100_000)))
            data[at:at] = opening * depth + b"1" + closing * depth
        case "word":
            data[at:at] = draw(st.sampled_from(_WORDS))
        case "digit" if data:
            data[at] = draw(st.sampled_from(b"0123456789abcdef"))
