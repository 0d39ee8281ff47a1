"""What a SIGSTRUCT says, apart from who signed it; and the 256 bytes that the signature covers (docs/formats.md section 7).

The signed bytes do not depend on the key: they can be carried to the machine that has it.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Iterable, Mapping

from msgspec import Struct

from sconify_tasks.sgx.measurement import MrEnclave

DEFAULT_DATE = 20250101
MAX_ID = 0xFFFF
SIGNED_SIZE = 256

MODE64BIT, DEBUG = 0x4, 0x2
XFRM = 0x3
XFRM_MASK = 0xFFFFFFFFFFFFFF1B
FLAGS_MASK = 0xFFFFFFFFFFFFFFFF
MISC_MASK = 0xFFFFFFFF

ATTRIBUTES: Mapping[str, tuple[int, int]] = {
    "provision-key": (0x10, 0),
    "einittoken-key": (0x20, 0),
    "avx": (0, 0x4),
    "avx512": (0, 0xE4),
    "pkru": (0, 0x200),
    "amx": (0, 0x60000),
}
"""What a signer may demand of the enclave beyond MODE64BIT: its bits of ATTRIBUTES.FLAGS, and of XFRM as XCR0 has them (Intel
SDM vol. 1, 13.3: AVX-512 takes AVX along). Each is set in ATTRIBUTES and in ATTRIBUTEMASK."""

HEADER = bytes.fromhex("06000000e10000000000010000000000")
HEADER2 = bytes.fromhex("01010000600000006000000001000000")
_HEAD = struct.Struct("<16sII16sI84x")
_BODY = struct.Struct("<II20xQQQQ32s32xHH")


class Claims(Struct, frozen=True, kw_only=True):
    """The fields that vary. `date` is a number that reads yyyymmdd; product id and SVN are 0 to 65535.

    `attributes` are as `attributes_of` returns them. ValueError for values out of range. All else is fixed: 64-bit, no KSS.
    """

    mrenclave: MrEnclave
    debug: bool
    isv_prod_id: int = 0
    isv_svn: int = 0
    date: int = DEFAULT_DATE
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.attributes != attributes_of(self.attributes):
            raise ValueError(f"attributes that imply others: {', '.join(self.attributes)}")
        require_date(self.date)
        if not (0 <= self.isv_prod_id <= MAX_ID and 0 <= self.isv_svn <= MAX_ID):
            raise ValueError(f"product id and SVN are 0 to {MAX_ID}, not {self.isv_prod_id} and {self.isv_svn}")

    @property
    def head(self) -> bytes:
        """Bytes 0 to 127."""
        return _HEAD.pack(HEADER, 0, int(str(self.date), 16), HEADER2, 0)

    @property
    def body(self) -> bytes:
        """Bytes 900 to 1027."""
        debug = DEBUG if self.debug else 0
        flags, xfrm = bits_of(self.attributes)
        return _BODY.pack(
            *(0, MISC_MASK),
            *(MODE64BIT | debug | flags, xfrm, FLAGS_MASK ^ debug, XFRM_MASK | xfrm),
            bytes.fromhex(self.mrenclave),
            *(self.isv_prod_id, self.isv_svn),
        )

    @property
    def signed(self) -> bytes:
        """The bytes that a signer signs: RSASSA-PKCS1-v1_5 with SHA-256 over these."""
        return self.head + self.body


def bits_of(attributes: Iterable[str]) -> tuple[int, int]:
    """The bits that these add to FLAGS, and the whole of XFRM with them. ValueError for an unknown name."""
    flags, xfrm = 0, XFRM
    for name in attributes:
        if name not in ATTRIBUTES:
            raise ValueError(f"there is no attribute {name}, only {', '.join(ATTRIBUTES)}")
        flags, xfrm = flags | ATTRIBUTES[name][0], xfrm | ATTRIBUTES[name][1]
    return flags, xfrm


def named(flags: int, xfrm: int) -> tuple[str, ...]:
    """The attributes whose bits are all there."""
    return tuple(name for name, (one, other) in ATTRIBUTES.items() if flags & one == one and xfrm & other == other)


def attributes_of(names: Iterable[str]) -> tuple[str, ...]:
    """These attributes and what they take along, once each and in their usual order."""
    return named(*bits_of(names))


def require_date(date: int) -> None:
    """Raise ValueError for a number that does not read as a date."""
    try:
        dt.date(date // 10000, date // 100 % 100, date % 100)
    except ValueError:
        raise ValueError(f"not a date of the form yyyymmdd: {date}") from None
