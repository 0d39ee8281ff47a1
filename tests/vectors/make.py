"""Write the format vectors. The same program gives the same files: a changed vector is a changed format.

Run it with project and tests on the path: `PYTHONPATH=tests python tests/vectors/make.py`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from vectors.binary_fs import binary_fs
from vectors.pattern import pattern

from sconify_tasks.fspf.entries import NO_FLAGS, Flag, ManifestEntry
from sconify_tasks.fspf.manifest import Manifest, encode_body, fspf_tag, seal_manifest
from sconify_tasks.fspf.names import x_name
from sconify_tasks.fspf.regions import Protection, Region, Regions
from sconify_tasks.fspf.stream import FILE_INFO, MANIFEST_INFO, SEALED_CHUNK, seal
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.sgx.claims import ATTRIBUTES, attributes_of
from sconify_tasks.sgx.layout import layout
from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig
from sconify_tasks.sgx.measurement import MrEnclave
from sconify_tasks.sgx.sgxs import measure, records
from sconify_tasks.sgx.signer import debug_signer
from sconify_tasks.sgx.sigstruct import build_sigstruct, parse_sigstruct

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


def files() -> dict[str, Any]:
    """Section 1."""
    cases = []
    stored: dict[int, bytes] = {}
    for size in (0, 5, 65_536, 131_073):
        plain = pattern(size)
        salt = hashlib.sha256(plain).digest()
        stored[size] = seal(KEY, FILE_INFO, plain)
        cases.append(
            {
                "name": f"{size} bytes",
                "fspf_key": KEY.hex(),
                "size": size,
                "salt": salt.hex(),
                "x_name": x_name(KEY, salt),
                "stored": stored[size].hex(),
            }
        )
    return {"format": "sconify/file/1", "cases": cases, "refused": _refused_files(stored)}


def _refused_files(stored: dict[int, bytes]) -> list[dict[str, Any]]:
    end = len(stored[131_073])
    two = 2 * SEALED_CHUNK
    whole = [[0, end]]
    flipped = bytes([stored[131_073][70_000] ^ 1]).hex()

    def case(name: str, error: str, of: int, parts: list[Any], **fields: str | int) -> dict[str, Any]:
        salt = hashlib.sha256(pattern(of)).digest()
        return {
            "name": name,
            "error": error,
            "fspf_key": KEY.hex(),
            "salt": salt.hex(),
            "size": of,
            "of": of,
            "parts": parts,
        } | fields

    foreign_salt = hashlib.sha256(b"another content").digest()
    return [
        case("cut in the last tag", "truncated", 131_073, [[0, end - 1]]),
        case("cut at a chunk's end", "truncated", 131_073, [[0, two]]),
        case("nothing stored", "truncated", 5, []),
        case("empty file without its tag", "truncated", 0, []),
        case("one byte more", "extended", 131_073, [*whole, "00"]),
        case("one sealed chunk more", "extended", 65_536, [[0, SEALED_CHUNK], [0, SEALED_CHUNK]]),
        case("a flipped bit", "authentication", 131_073, [[0, 70_000], flipped, [70_001, end]]),
        case("two chunks swapped", "authentication", 131_073, [[SEALED_CHUNK, two], [0, SEALED_CHUNK], [two, end]]),
        case("one chunk twice", "authentication", 131_073, [[0, SEALED_CHUNK], [0, SEALED_CHUNK], [two, end]]),
        case("another key", "authentication", 131_073, whole, fspf_key=OTHER_KEY.hex()),
        case("another salt", "authentication", 131_073, whole, salt=foreign_salt.hex()),
        # The last chunk of 65,536 bytes claims to be followed by another: only the flag in the nonce tells.
        case("a last chunk in the middle", "authentication", 65_536, [[0, SEALED_CHUNK], [0, 17]], size=65_537),
    ]


def seal_digest_mismatch() -> dict[str, Any]:
    """A file sealed under the salt of other content: every chunk authenticates, the digest does not."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from sconify_tasks.fspf.stream import derive

    salt = hashlib.sha256(b"claimed").digest()
    stored = AESGCM(derive(KEY, salt, FILE_INFO)).encrypt(bytes(11) + b"\1", b"actual!", None)
    return {
        "name": "sealed under another content's salt",
        "error": "digest",
        "fspf_key": KEY.hex(),
        "salt": salt.hex(),
        "size": 7,
        "stored": stored.hex(),
    }


REGIONS = Regions.of(
    [
        Region(path=b"/", protection=Protection.NONE),
        Region(path=b"/app", protection=Protection.ENCRYPTED),
        Region(path=b"/app/public", protection=Protection.AUTHENTICATED),
        Region(path=b"/app/tmp", protection=Protection.NONE),
    ]
)


def entry(
    path: bytes, kind: Kind, protection: Protection = Protection.NONE, flags: Flag = NO_FLAGS, content: bytes = b"", **meta: Any
) -> ManifestEntry:
    """One entry; `content` is the plaintext that the digest is taken from."""
    if kind is Kind.FILE:
        meta.setdefault("size", len(content))
    digest = hashlib.sha256(content).digest() if kind is Kind.FILE else b""
    return ManifestEntry(meta=Entry(path=path, kind=kind, **meta), protection=protection, flags=flags, content=digest)


ENTRIES = (
    entry(b"/app", Kind.DIR, Protection.ENCRYPTED, mode=0o755, mtime=1_700_000_000_123_456_789),
    entry(b"/app/caf\xc3\xa9", Kind.FILE, Protection.ENCRYPTED, content=b"name in UTF-8", uid=1000, gid=1000),
    entry(b"/app/late\xff", Kind.FILE, Protection.ENCRYPTED, content=b"", mtime=-1_500_000_000, mode=0o600),
    entry(b"/app/link", Kind.SYMLINK, Protection.ENCRYPTED, target=b"../usr/lib/x", mode=0o777),
    entry(
        b"/app/main.py",
        Kind.FILE,
        Protection.ENCRYPTED,
        content=b"print(1)\n",
        xattrs=((b"user.a", b""), (b"user.b", b"\0\xff")),
    ),
    entry(b"/app/public", Kind.DIR, Protection.AUTHENTICATED, mode=0o755),
    entry(b"/app/public/index", Kind.FILE, Protection.AUTHENTICATED, content=b"hello", mode=0o755),
    entry(b"/app/run", Kind.FILE, Protection.ENCRYPTED, Flag.STORED_X, b"#!/bin/sh\n", mode=0o4755),
    entry(b"/app/zz-fifo", Kind.FIFO, Protection.ENCRYPTED),
    entry(b"/app/zz-null", Kind.CHAR, Protection.ENCRYPTED, rdev=(1, 3), mode=0o666),
    entry(b"/app/zz-sda", Kind.BLOCK, Protection.ENCRYPTED, rdev=(8, 0), mode=0o660),
    entry(b"/lib", Kind.SYMLINK, flags=Flag.PINNED, target=b"usr/lib", mode=0o777),
    entry(b"/usr", Kind.DIR, flags=Flag.PINNED, mode=0o755),
    entry(b"/usr/bin", Kind.DIR, flags=Flag.PINNED, mode=0o755),
    entry(b"/usr/bin/python3", Kind.FILE, Protection.AUTHENTICATED, Flag.MAIN, b"\x7fELF main", mode=0o755),
    entry(b"/usr/lib", Kind.DIR, flags=Flag.PINNED, mode=0o755),
    entry(b"/usr/lib/ld.so", Kind.FILE, Protection.AUTHENTICATED, Flag.CLOSURE, b"\x7fELF loader", mode=0o755),
)


def manifests() -> dict[str, Any]:
    """Section 2."""
    full = Manifest(regions=REGIONS, entries=ENTRIES)
    smallest = Manifest(regions=Regions.of([Region(path=b"/", protection=Protection.NONE)]), entries=())
    cases = []
    for name, manifest in (("every kind, class and flag", full), ("nothing protected", smallest)):
        stored = seal_manifest(KEY, manifest)
        cases.append(
            {
                "name": name,
                "fspf_key": KEY.hex(),
                "fspf_tag": fspf_tag(stored).hex(),
                "body": encode_body(manifest).hex(),
                "stored": stored.hex(),
                "regions": [
                    {"path": region.path.hex(), "class": int(region.protection)} for region in manifest.regions.regions
                ],
                "entries": [_entry_fields(entry) for entry in manifest.entries],
            }
        )
    return {"format": "sconify/manifest/1", "cases": cases, "refused": _refused_manifests(smallest, full)}


def _entry_fields(entry: ManifestEntry) -> dict[str, Any]:
    meta = entry.meta
    return {
        "path": meta.path.hex(),
        "kind": int(meta.kind),
        "class": int(entry.protection),
        "flags": int(entry.flags),
        "mode": meta.mode,
        "uid": meta.uid,
        "gid": meta.gid,
        "mtime_seconds": meta.mtime // 10**9,
        "mtime_nanoseconds": meta.mtime % 10**9,
        "size": meta.size,
        "sha256": entry.content.hex(),
        "target": meta.target.hex(),
        "major": meta.rdev[0],
        "minor": meta.rdev[1],
        "xattrs": [[name.hex(), value.hex()] for name, value in meta.xattrs],
    }


def store(body: bytes) -> bytes:
    """Seal any body, however wrong."""
    return struct.pack("<8sII32s", b"SCONFSPF", 1, 0, hashlib.sha256(body).digest()) + seal(KEY, MANIFEST_INFO, body)


def _region(path: bytes, protection: int, zero: int = 0) -> bytes:
    return struct.pack("<H", len(path)) + path + bytes((protection, zero))


def _directory(
    path: bytes,
    *,
    kind: int = 1,
    protection: int = 0,
    flags: int = 8,
    mode: int = 0o755,
    nanoseconds: int = 0,
    xattrs: bytes = b"\0\0",
) -> bytes:
    head = struct.pack("<BBHIIIqI", kind, protection, flags, mode, 0, 0, 0, nanoseconds)
    return struct.pack("<H", len(path)) + path + head + xattrs


def _body(*entries: bytes, regions: tuple[bytes, ...] = (_region(b"/", 0),), count: int | None = None) -> bytes:
    entry_count = len(entries) if count is None else count
    return struct.pack("<I", len(regions)) + b"".join(regions) + struct.pack("<I", entry_count) + b"".join(entries)


def _refused_manifests(smallest: Manifest, full: Manifest) -> list[dict[str, Any]]:
    good = store(_body(_directory(b"/a")))
    symlink_head = struct.pack("<H", 2) + b"/l" + struct.pack("<BBHIIIqI", 2, 0, 8, 0o777, 0, 0, 0, 0)
    two_xattrs = struct.pack("<H", 2) + 2 * (struct.pack("<H", 1) + b"n" + struct.pack("<I", 0))
    bodies = [
        ("entries out of order", "unsorted", _body(_directory(b"/b"), _directory(b"/a"))),
        ("an entry twice", "duplicate", _body(_directory(b"/a"), _directory(b"/a"))),
        ("bytes after the last entry", "trailing", _body(_directory(b"/a")) + b"\0"),
        ("fewer entries than counted", "truncated", _body(_directory(b"/a"), count=2)),
        ("a count of four thousand million", "truncated", _body(_directory(b"/a"), count=0xFFFFFFFF)),
        ("a path longer than the body", "truncated", _body(b"\xff\xff/a", count=1)),
        ("an attribute longer than the body", "truncated", _body(_directory(b"/a", xattrs=b"\1\0\1\0n\xff\xff\xff\xff"))),
        ("a relative path", "path", _body(_directory(b"a"))),
        ("an empty path", "path", _body(_directory(b""))),
        ("a path with a slash at its end", "path", _body(_directory(b"/a/"))),
        ("a path with ..", "path", _body(_directory(b"/a/../b"))),
        ("a path with an empty component", "path", _body(_directory(b"/a//b"))),
        ("a path with a zero byte", "path", _body(_directory(b"/a\0b"))),
        ("kind 6", "kind", _body(_directory(b"/a", kind=6))),
        ("class 3", "class", _body(_directory(b"/a", protection=3))),
        ("flag bit 4", "flags", _body(_directory(b"/a", flags=16))),
        ("a mode with a file type", "range", _body(_directory(b"/a", mode=0o40755))),
        ("a thousand million nanoseconds", "range", _body(_directory(b"/a", nanoseconds=10**9))),
        ("a symlink to nothing", "target", _body(symlink_head + struct.pack("<H", 0) + b"\0\0")),
        ("an attribute twice", "duplicate", _body(_directory(b"/a", xattrs=two_xattrs))),
        ("no region", "root-region", _body(regions=())),
        ("no region for /", "root-region", _body(regions=(_region(b"/a", 1),))),
        ("regions out of order", "unsorted", _body(regions=(_region(b"/a", 1), _region(b"/", 0)))),
        ("a region twice", "duplicate", _body(regions=(_region(b"/", 0), _region(b"/", 0)))),
        ("a region of class 3", "class", _body(regions=(_region(b"/", 3),))),
        ("a region with a reserved byte", "range", _body(regions=(_region(b"/", 0, 1),))),
        ("an empty body", "truncated", b""),
    ]
    refused = [{"name": name, "error": error, "stored": store(body).hex()} for name, error, body in bodies]
    refused += [
        {"name": "another magic", "error": "magic", "stored": (b"SCONFSPG" + good[8:]).hex()},
        {"name": "version 2", "error": "version", "stored": (good[:8] + b"\2" + good[9:]).hex()},
        {"name": "a flag in the header", "error": "flags", "stored": (good[:12] + b"\1" + good[13:]).hex()},
        {"name": "a header alone", "error": "truncated", "stored": good[:48].hex()},
        {"name": "half a header", "error": "truncated", "stored": good[:20].hex()},
        {
            "name": "a flipped bit in the body",
            "error": "authentication",
            "stored": (good[:50] + bytes([good[50] ^ 1]) + good[51:]).hex(),
        },
        {"name": "another salt", "error": "authentication", "stored": (good[:16] + bytes(32) + good[48:]).hex()},
        {"name": "one byte more", "error": "authentication", "stored": (good + b"\0").hex()},
    ]
    refused = [case | {"fspf_key": KEY.hex(), "fspf_tag": fspf_tag(bytes.fromhex(case["stored"])).hex()} for case in refused]
    other = seal_manifest(KEY, replace(full, entries=()))
    return [
        *refused,
        {
            "name": "a proper manifest, but another one",
            "error": "tag",
            "fspf_key": KEY.hex(),
            "fspf_tag": fspf_tag(seal_manifest(KEY, smallest)).hex(),
            "stored": other.hex(),
        },
    ]


CONFIG = MeasuredConfig(
    heap=1 << 30,
    stack=1 << 20,
    dlopen=1,
    fork=0,
    mprotect=1,
    threads=2,
    binary=MeasuredBinary(path="/usr/bin/python3", sha256="ab" * 32, size=5_000_000, protected=False),
    binary_fs=None,
    cas_spki="cd" * 32,
)
CONFIGS = {
    "typical": CONFIG,
    "smallest": replace(CONFIG, heap=0, stack=0, dlopen=0, mprotect=0, threads=1, cas_spki=None),
    "largest": replace(
        CONFIG, heap=1 << 40, stack=1 << 40, dlopen=2, fork=1, threads=256, binary_fs="ef" * 32,
        binary=replace(CONFIG.binary, path='/opt/\u00fcn\u2028\U0001f512 "\\\u001f/x', protected=True),
    ),
}  # fmt: skip


def config_fields(config: MeasuredConfig) -> dict[str, Any]:
    """The keys of section 4."""
    return {"v": 1, **config.as_json()}


def measured_configs() -> dict[str, Any]:
    """Section 4."""
    cases = [
        {"name": name, "config": config_fields(config), "encoded": config.encode().hex()} for name, config in CONFIGS.items()
    ]
    encoded = CONFIG.encode()
    text = encoded.rstrip(b"\0")

    def padded(changed: bytes) -> str:
        assert changed != text
        return (changed + bytes(-len(changed) % 4096)).hex()

    def edited(old: bytes, new: bytes) -> str:
        assert text.count(old) == 1, old
        return padded(text.replace(old, new))

    refused = [
        ("version 2", "version", edited(b'"v":1', b'"v":2')),
        ("an unknown key", "unknown-key", edited(b'"v":1', b'"v":1,"w":1')),
        ("an unknown key of the binary", "unknown-key", edited(b'"size"', b'"a":0,"size"')),
        ("a missing key", "missing-key", edited(b'"fork":0,', b"")),
        ("a missing key of the binary", "missing-key", edited(b',"size":5000000', b"")),
        ("heap is no multiple of a page", "range", edited(b'"heap":1073741824', b'"heap":1073741825')),
        ("heap is negative", "range", edited(b'"heap":1073741824', b'"heap":-4096')),
        ("heap above 2^40", "range", edited(b'"heap":1073741824', b'"heap":1099511631872')),
        ("heap is a string", "range", edited(b'"heap":1073741824', b'"heap":"1G"')),
        ("dlopen is 3", "range", edited(b'"dlopen":1', b'"dlopen":3')),
        ("fork is true", "range", edited(b'"fork":0', b'"fork":false')),
        ("no thread", "range", edited(b'"threads":2', b'"threads":0')),
        ("257 threads", "range", edited(b'"threads":2', b'"threads":257')),
        ("protected is 0", "range", edited(b'"protected":false', b'"protected":0')),
        ("a relative path", "range", edited(b'"path":"/usr', b'"path":"usr')),
        ("a path with ..", "range", edited(b'"path":"/usr', b'"path":"/../usr')),
        ("an upper-case digest", "range", edited(b'"sha256":"abab', b'"sha256":"ABab')),
        ("a short pin", "range", edited(b'"cas_spki":"cdcd', b'"cas_spki":"cd')),
        ("white space", "canonical", edited(b'"v":1', b'"v": 1')),
        ("keys in another order", "canonical", padded(b'{"v":1,' + text.replace(b',"v":1', b"")[1:])),
        ("a key twice", "canonical", edited(b'"v":1', b'"v":1,"v":1')),
        ("an escaped letter", "canonical", edited(b'"/usr', b'"/\\u0075sr')),
        ("a page of padding too many", "canonical", (encoded + bytes(4096)).hex()),
        ("text in the padding", "json", (encoded[:-1] + b"x").hex()),
        ("cut", "length", encoded[:-1].hex()),
        ("nothing", "length", ""),
        ("no JSON", "json", bytes(4096).hex()),
        ("a list", "json", padded(b"[]")),
        ("not UTF-8", "json", padded(b'{"v":"\xff"}')),
    ]
    return {
        "format": "sconify/config/1",
        "cases": cases,
        "refused": [{"name": name, "error": error, "encoded": data} for name, error, data in refused],
    }


def elf(segments: list[tuple[int, int, int, int, int]], *, entry: int, length: int, sections: int = 0x1234) -> bytes:
    """A hand-made ELF64 file: segments are (flags, offset, address, size in file, size in memory); `sections` is e_shoff."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 2, 62, 1, entry, 64, sections, 0, 64, 56, len(segments), 64, 5, 4
    )
    table = b"".join(
        struct.pack("<IIQQQQQQ", 1, flags, offset, address, address, file_size, memory_size, 4096)
        for flags, offset, address, file_size, memory_size in segments
    )
    return (header + table + pattern(length))[:length]


ELFS = {
    "two segments, one of them with zeros at its end": elf(
        [(5, 0, 0x400000, 300, 300), (6, 300, 0x40212C, 200, 9000)], entry=0x400100, length=500
    ),
    "a hole between segments, and the section header table in the first one": elf(
        [(5, 0, 0x10000, 1000, 1000), (6, 1000, 0x203E8, 100, 100)], entry=0x10080, length=1100, sections=200
    ),
    "a header that no segment loads": elf([(5, 192, 0x7000, 5000, 5000)], entry=0x7010, length=5192),
}


def measurements() -> dict[str, Any]:
    """Section 6."""
    cases = []
    for elf_name, data in ELFS.items():
        for config_name in ("typical", "smallest"):
            config = CONFIGS[config_name]
            enclave = layout(data, config)
            stream = b"".join(records(enclave, data))
            cases.append(
                {
                    "name": f"{elf_name}; {config_name} config",
                    "elf": data.hex(),
                    "config": config_fields(config),
                    "size": enclave.size,
                    "config_offset": enclave.config_offset,
                    "threads_offset": enclave.threads_offset,
                    "records": (len(stream) - 64) // 5184 * 17 + 1,
                    "mrenclave": str(measure(data, config)),
                }
            )
    refused = [
        {
            "name": "two segments share a page",
            "error": "overlap",
            "elf": elf([(5, 0, 0x1000, 300, 300), (6, 300, 0x1800, 10, 10)], entry=0x1010, length=400).hex(),
            "config": config_fields(CONFIG),
        },
        {
            "name": "segments in descending order",
            "error": "overlap",
            "elf": elf([(6, 256, 0x20100, 100, 100), (4, 0, 0x10000, 200, 200)], entry=0x10080, length=400).hex(),
            "config": config_fields(CONFIG),
        },
        {
            "name": "the entry point lies outside",
            "error": "entry",
            "elf": elf([(5, 0, 0x1000, 300, 300)], entry=0x9000, length=400).hex(),
            "config": config_fields(CONFIG),
        },
    ]
    return {"format": "sconify/layout/1", "cases": cases, "refused": refused}


def sigstructs() -> dict[str, Any]:
    """Section 7."""
    signer, mrenclave = debug_signer(), MrEnclave("5a" * 32)
    debug = build_sigstruct(mrenclave, signer, debug=True)
    production = build_sigstruct(mrenclave, signer, debug=False, isv_prod_id=4660, isv_svn=3, date=20261231)
    demanding = build_sigstruct(mrenclave, signer, debug=False, attributes=attributes_of(ATTRIBUTES))
    cases = []
    for name, data in (("debug", debug), ("production", production), ("every attribute", demanding)):
        parsed = parse_sigstruct(data)
        cases.append(
            {
                "name": name,
                "sigstruct": data.hex(),
                "mrenclave": str(parsed.mrenclave),
                "mrsigner": parsed.mrsigner,
                "debug": parsed.debug,
                "isv_prod_id": parsed.isv_prod_id,
                "isv_svn": parsed.isv_svn,
                "date": parsed.date,
                "attributes": list(parsed.attributes),
            }
        )

    def flip(offset: int, bits: int = 1) -> str:
        return (production[:offset] + bytes([production[offset] ^ bits]) + production[offset + 1 :]).hex()

    refused = [
        ("cut", "length", production[:-1].hex()),
        ("one byte more", "length", (production + b"\0").hex()),
        ("another header", "header", flip(0)),
        ("another second header", "header", flip(24)),
        ("a vendor", "reserved", flip(16)),
        ("reserved bytes after SWDEFINED", "reserved", flip(44)),
        ("CET attributes", "reserved", flip(908)),
        ("a family id", "reserved", flip(912)),
        ("reserved bytes at the end", "reserved", flip(1039)),
        ("exponent 2", "exponent", flip(512)),
        ("no date", "date", flip(22, 0xF0)),
        ("attribute INIT", "attributes", flip(928)),
        ("the mask leaves DEBUG open", "attributes", flip(944, 2)),
        ("MISCSELECT", "attributes", flip(900)),
        ("KSS", "attributes", flip(928, 0x80)),
        ("the mask leaves the provisioning key open", "attributes", flip(944, 0x10)),
        ("XFRM without SSE", "attributes", flip(936, 2)),
        ("AVX that the mask leaves open", "attributes", flip(936, 4)),
        ("one half of AMX", "attributes", flip(938, 2)),
        ("a feature that nobody knows", "attributes", flip(937, 0x80)),
        ("another measurement", "signature", flip(960)),
        ("another product id", "signature", flip(1024)),
        ("another date", "signature", flip(20)),
        ("a flipped signature", "signature", flip(516)),
        ("a flipped modulus", "signature", flip(130)),
        ("a signature that is not below the modulus", "signature", (production[:516] + b"\xff" * 384 + production[900:]).hex()),
        ("a flipped Q1", "quotients", flip(1040)),
        ("a flipped Q2", "quotients", flip(1424)),
    ]
    return {
        "format": "sconify/sigstruct/1",
        "cases": cases,
        "refused": [{"name": name, "error": error, "sigstruct": data} for name, error, data in refused],
    }


def vectors() -> dict[str, dict[str, Any]]:
    """Every file's name and content."""
    protected = files()
    protected["refused"].append(seal_digest_mismatch())
    return {
        "binary_fs.json": binary_fs(),
        "file.json": protected,
        "manifest.json": manifests(),
        "measured_config.json": measured_configs(),
        "mrenclave.json": measurements(),
        "sigstruct.json": sigstructs(),
    }


def render(vector: dict[str, Any]) -> str:
    """The text of a file."""
    return json.dumps(vector, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    for file_name, vector in vectors().items():
        (Path(__file__).parent / file_name).write_text(render(vector))
