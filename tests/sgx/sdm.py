"""What a processor does with an enclave, written from the Intel SDM (vol. 3D) alone: no code of the product is used.

`MEASURED` ELF and config -> MRENCLAVE the slow and literal way; an SGXS stream is executed record by record with the checks
that ECREATE, EADD and EEXTEND make; a SIGSTRUCT is checked as EINIT does, with integer arithmetic.
"""

from __future__ import annotations

import hashlib
import struct

PAGE = 4096


def measure(elf: bytes, config_page: bytes, *, threads: int, heap: int, stack: int) -> str:  # noqa: C901, PLR0912, PLR0915 - literal on purpose
    """MRENCLAVE of docs/formats.md section 6, page by page into a dictionary."""
    (phoff, shoff) = struct.unpack_from("<QQ", elf, 32)
    (entry,) = struct.unpack_from("<Q", elf, 24)
    phentsize, phnum, shentsize, shnum = struct.unpack_from("<HHHH", elf, 54)
    file = bytearray(elf)

    def wipe(start: int, length: int) -> None:
        for position in range(start, min(start + length, len(file))):
            file[position] = 0

    headers = []
    for number in range(phnum):
        start = phoff + number * phentsize
        kind, flags, offset, address, _, file_size, memory_size, _ = struct.unpack_from("<IIQQQQQQ", elf, start)
        if kind == 1 and memory_size:
            headers.append((flags, offset, address, file_size, memory_size))
        if kind == 1:
            wipe(start + 8, 8)
            wipe(start + 32, 8)
    wipe(0x28, 8)
    wipe(0x3C, 4)
    wipe(shoff, shentsize * shnum)

    base = min(address for _, _, address, _, _ in headers) & ~0xFFF
    pages: list[tuple[int, int, bytes]] = []
    for flags, offset, address, file_size, memory_size in headers:
        memory = {}
        for number in range(file_size):
            memory[address + number] = file[offset + number]
        permissions = (1 if flags & 4 else 0) | (2 if flags & 2 else 0) | (4 if flags & 1 else 0)
        at = address & ~0xFFF
        of_segment = []
        while at < address + memory_size:
            of_segment.append((at - base, permissions | 0x200, bytes(memory.get(at + number, 0) for number in range(PAGE))))
            at += PAGE
        while of_segment and of_segment[-1][2] == bytes(PAGE):
            of_segment.pop()
        pages += of_segment
    at = max(-(-(address + memory_size) // PAGE) * PAGE for _, _, address, _, memory_size in headers) - base
    for number in range(0, len(config_page), PAGE):
        pages.append((at, 0x201, config_page[number : number + PAGE]))
        at += PAGE
    for _ in range(threads):
        at += PAGE
        stack_at = at
        for _ in range(16):
            pages.append((at, 0x203, bytes(PAGE)))
            at += PAGE
        at += PAGE
        tcs = bytearray(PAGE)
        tcs[16:24] = struct.pack("<Q", at + PAGE)
        tcs[28:32] = struct.pack("<I", 2)
        tcs[32:40] = struct.pack("<Q", entry - base)
        tcs[48:56] = struct.pack("<Q", stack_at)
        tcs[56:64] = struct.pack("<Q", stack_at)
        tcs[64:72] = b"\xff\x0f\0\0\xff\x0f\0\0"
        pages.append((at, 0x100, bytes(tcs)))
        at += PAGE
        for _ in range(2):
            pages.append((at, 0x203, bytes(PAGE)))
            at += PAGE
    at += heap + threads * max(0, stack - 16 * PAGE)
    size = 1 << 21
    while size < at:
        size *= 2

    digest = hashlib.sha256(b"ECREATE\0" + struct.pack("<IQ", 1, size) + bytes(44))
    for offset, flags, content in pages:
        digest.update(b"EADD\0\0\0\0" + struct.pack("<QQ", offset, flags) + bytes(40))
        for block in range(0, PAGE, 256):
            digest.update(b"EEXTEND\0" + struct.pack("<Q", offset + block) + bytes(48))
            digest.update(content[block : block + 256])
    return digest.hexdigest()


class Processor:
    """Executes an SGXS stream. An assertion that fails is an instruction that faults (#GP, #PF) or an unmeasured byte."""

    def __init__(self, stream: bytes, *, our_layout: bool = True) -> None:
        self.pages: dict[int, tuple[int, bytearray]] = {}
        self.measured: dict[int, set[int]] = {}
        assert len(stream) % 64 == 0
        self.ecreate(stream[:64])
        position = 64
        while position < len(stream):
            record = stream[position : position + 64]
            position += 64
            if record[:8] == b"EADD\0\0\0\0":
                self.eadd(record)
            elif record[:8] == b"EEXTEND\0":
                self.eextend(record, stream[position : position + 256])
                position += 256
            else:
                raise AssertionError(f"unknown record {record[:8]!r}")
        assert all(blocks == set(range(0, PAGE, 256)) for blocks in self.measured.values())
        for offset, (flags, content) in self.pages.items():
            if flags >> 8 == 1:
                self.check_tcs(content)
                if our_layout:
                    self.check_guards(offset, content)
        self.mrenclave = hashlib.sha256(stream).hexdigest()

    def ecreate(self, record: bytes) -> None:
        assert record[:8] == b"ECREATE\0"
        self.ssa_frame_size, self.size = struct.unpack_from("<IQ", record, 8)
        assert record[20:] == bytes(44)
        assert self.ssa_frame_size > 0
        assert self.size >= 2 * PAGE
        assert self.size & (self.size - 1) == 0, "SECS.SIZE must be a power of two"

    def eadd(self, record: bytes) -> None:
        offset, flags = struct.unpack_from("<QQ", record, 8)
        assert record[24:] == bytes(40), "reserved bytes of SECINFO"
        assert offset % PAGE == 0
        assert offset + PAGE <= self.size
        assert offset not in self.pages
        page_type, permissions = flags >> 8, flags & 0xFF
        assert page_type in (1, 2)
        assert permissions < 8
        if page_type == 1:
            assert permissions == 0, "EADD clears R, W and X of a TCS"
        else:
            assert permissions & 1 or not permissions & 2, "a page that is written must be readable"
        self.pages[offset] = (flags, bytearray(PAGE))
        self.measured[offset] = set()

    def eextend(self, record: bytes, content: bytes) -> None:
        (offset,) = struct.unpack_from("<Q", record, 8)
        assert record[16:] == bytes(48)
        assert offset % 256 == 0
        page, block = offset & ~0xFFF, offset & 0xFFF
        assert block not in self.measured[page]
        self.measured[page].add(block)
        self.pages[page][1][block : block + 256] = content

    def check_tcs(self, content: bytearray) -> None:
        """What EADD and EENTER demand of a TCS (SDM vol. 3D, 34.8)."""
        state, flags, ossa, cssa, nssa, oentry, aep, fs, gs, fs_limit, gs_limit = struct.unpack_from("<QQQIIQQQQII", content)
        assert (state, flags, cssa, aep) == (0, 0, 0, 0)
        assert content[72:] == bytes(PAGE - 72)
        assert nssa >= 2, "an exception inside an exception needs a second frame"
        for number in range(nssa * self.ssa_frame_size):
            assert self.pages[ossa + number * PAGE][0] == 0x203
        assert self.pages[oentry & ~0xFFF][0] & 4, "the entry point must be executable"
        for base, limit in ((fs, fs_limit), (gs, gs_limit)):
            assert base % PAGE == 0
            assert limit & 0xFFF == 0xFFF
            assert self.pages[base][0] == 0x203

    def check_guards(self, offset: int, content: bytearray) -> None:
        """What the format promises beyond that."""
        (stack,) = struct.unpack_from("<Q", content, 48)
        assert offset - PAGE not in self.pages, "no guard page between stack and TCS"
        assert stack - PAGE not in self.pages, "no guard page below the stack"


def check_xfrm(xfrm: int) -> None:
    """What ECREATE demands (SDM vol. 3D, 40.3; vol. 1, 13.3): x87 and SSE, features whole, AVX-512 with AVX, no others."""
    avx, avx512, pkru, amx = 1 << 2, 7 << 5, 1 << 9, 3 << 17
    assert xfrm & 3 == 3
    assert xfrm & ~(3 | avx | avx512 | pkru | amx) == 0
    assert xfrm & avx512 in (0, avx512)
    assert xfrm & amx in (0, amx)
    assert xfrm & avx or not xfrm & avx512


def admits(sigstruct: bytes, flags: int, xfrm: int) -> bool:
    """Whether EINIT takes an enclave with these ATTRIBUTES, as its REPORT shows them: INIT is set by EINIT itself."""
    check_xfrm(xfrm)
    wanted = struct.unpack_from("<QQ", sigstruct, 928)
    masks = struct.unpack_from("<QQ", sigstruct, 944)
    present = (flags & ~1, xfrm)
    return all(one & mask == other & mask for one, other, mask in zip(present, wanted, masks, strict=True))


# DER of DigestInfo for SHA-256 (RFC 8017 section 9.2).
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def einit(sigstruct: bytes, mrenclave: str) -> str:
    """Check as EINIT does; return MRSIGNER."""
    assert len(sigstruct) == 1808
    assert sigstruct[0:16].hex() == "06000000e10000000000010000000000"
    assert sigstruct[16:20] in (bytes(4), bytes.fromhex("86800000"))
    assert sigstruct[24:40].hex() == "01010000600000006000000001000000"
    assert sigstruct[44:128] == bytes(84)
    modulus = int.from_bytes(sigstruct[128:512], "little")
    assert struct.unpack_from("<I", sigstruct, 512) == (3,)
    signature = int.from_bytes(sigstruct[516:900], "little")
    assert sigstruct[908:928] == bytes(20)
    assert sigstruct[992:1024] == bytes(32)
    assert sigstruct[1028:1040] == bytes(12)
    assert signature < modulus
    q1 = int.from_bytes(sigstruct[1040:1424], "little")
    q2 = int.from_bytes(sigstruct[1424:1808], "little")
    # EINIT never divides: it forms S^3 mod M from the quotients that it is given.
    first = signature * signature - q1 * modulus
    assert 0 <= first < modulus
    second = first * signature - q2 * modulus
    assert 0 <= second < modulus
    digest = hashlib.sha256(sigstruct[0:128] + sigstruct[900:1028]).digest()
    info = _DIGEST_INFO + digest
    padded = b"\0\1" + b"\xff" * (384 - 3 - len(info)) + b"\0" + info
    assert second.to_bytes(384, "big") == padded
    flags, xfrm, flags_mask, xfrm_mask = struct.unpack_from("<QQQQ", sigstruct, 928)
    assert flags & 0x4, "MODE64BIT"
    assert flags & ~0x36 == 0, "more than MODE64BIT, DEBUG, PROVISIONKEY and EINITTOKEN_KEY"
    check_xfrm(xfrm)
    assert xfrm & ~xfrm_mask == 0 or xfrm_mask & xfrm == xfrm & xfrm_mask
    assert flags_mask & ~0x2 == 0xFFFFFFFFFFFFFFFD
    assert sigstruct[960:992].hex() == mrenclave
    return hashlib.sha256(sigstruct[128:512]).hexdigest()
