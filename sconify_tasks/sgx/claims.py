"""What a SIGSTRUCT says, apart from who signed it; and the 256 bytes that the signature covers (docs/formats.md section 7).

The signed bytes do not depend on the key: they can be carried to the machine that has it.
"""

from __future__ import annotations

import datetime as dt
import struct

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

HEADER = bytes.fromhex("06000000e10000000000010000000000")
HEADER2 = bytes.fromhex("01010000600000006000000001000000")
_HEAD = struct.Struct("<16sII16sI84x")
_BODY = struct.Struct("<II20xQQQQ32s32xHH")


class Claims(Struct, frozen=True, kw_only=True):
    """The fields that vary. `date` is a number that reads yyyymmdd; product id and SVN are 0 to 65535.

    ValueError for values out of range. All other attributes are fixed: 64-bit, no KSS, no provisioning and launch keys.
    """

    mrenclave: MrEnclave
    debug: bool
    isv_prod_id: int = 0
    isv_svn: int = 0
    date: int = DEFAULT_DATE

    def __post_init__(self) -> None:
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
        return _BODY.pack(
            *(0, MISC_MASK),
            *(MODE64BIT | debug, XFRM, FLAGS_MASK ^ debug, XFRM_MASK),
            bytes.fromhex(self.mrenclave),
            *(self.isv_prod_id, self.isv_svn),
        )

    @property
    def signed(self) -> bytes:
        """The bytes that a signer signs: RSASSA-PKCS1-v1_5 with SHA-256 over these."""
        return self.head + self.body


def require_date(date: int) -> None:
    """Raise ValueError for a number that does not read as a date."""
    try:
        dt.date(date // 10000, date // 100 % 100, date % 100)
    except ValueError:
        raise ValueError(f"not a date of the form yyyymmdd: {date}") from None
