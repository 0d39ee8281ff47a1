"""The SGXS stream: the records that MRENCLAVE is the SHA-256 of (Intel SDM vol. 3D, ECREATE, EADD, EEXTEND).

Other tools that know the format can check a measurement from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO

from sconify_tasks.elf_place import ElfPlace
from sconify_tasks.sgx.layout import SSA_FRAME_PAGES, Layout, layout
from sconify_tasks.sgx.measured_config import PAGE, MeasuredConfig
from sconify_tasks.sgx.measurement import MrEnclave

_BLOCK = 256
_BLOCKS = PAGE // _BLOCK
_ECREATE = Struct("<8sIQ44x")
# One pack a page instead of one a record: 33 records would cost ten times as much.
_PAGE = Struct("<8sQQ40x" + "8sQ48x256s" * _BLOCKS)
_BATCH = 64


def records(enclave: Layout, runtime: ElfPlace) -> Iterator[bytes]:
    """Yield the stream's bytes, in batches of whole pages."""
    yield _ECREATE.pack(b"ECREATE\0", SSA_FRAME_PAGES, enclave.size)
    batch: list[bytes] = []
    for page in enclave.pages(runtime):
        fields: list[bytes | int] = [b"EADD\0\0\0\0", page.offset, page.flags]
        for position in range(0, PAGE, _BLOCK):
            fields += (b"EEXTEND\0", page.offset + position, page.content[position : position + _BLOCK])
        batch.append(_PAGE.pack(*fields))
        if len(batch) == _BATCH:
            yield b"".join(batch)
            batch.clear()
    yield b"".join(batch)


def measure(runtime: ElfPlace, config: MeasuredConfig) -> MrEnclave:
    """MRENCLAVE of the runtime (plain or sconified) under this config."""
    digest = hashlib.sha256()
    for record in records(layout(runtime, config), runtime):
        digest.update(record)
    return MrEnclave(digest.hexdigest())


def write_sgxs(out: BinaryIO, runtime: ElfPlace, config: MeasuredConfig) -> MrEnclave:
    """Write the stream to `out`; its SHA-256 is what this returns."""
    digest = hashlib.sha256()
    for record in records(layout(runtime, config), runtime):
        digest.update(record)
        out.write(record)
    return MrEnclave(digest.hexdigest())
