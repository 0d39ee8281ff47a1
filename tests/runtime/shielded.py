"""Sconified trees for tests: an overlay of this machine's own root, changed by small Python code, run natively in a chroot.

The tree is made with the real rooms (manifest, sealing, sections, signature). The overlay, PID and mount namespaces belong to
the test: the runtime itself needs no privilege.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import shutil
import stat
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.fake_cas import FakeCas, FakeLas

from sconify_tasks.fspf.entries import Flag, ManifestEntry
from sconify_tasks.fspf.manifest import Manifest, fspf_tag, seal_manifest
from sconify_tasks.fspf.names import x_name
from sconify_tasks.fspf.regions import Protection, Region, Regions
from sconify_tasks.fspf.stream import seal
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.sconified import write_sconified
from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.sgx.signer import debug_signer
from sconify_tasks.sgx.sigstruct import build_sigstruct

KEY = bytes(range(32))
FILE_INFO = b"sconify/file/1"
CLASSES = {"encrypted": Protection.ENCRYPTED, "authenticated": Protection.AUTHENTICATED, "plain": Protection.NONE}
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}
PYTHON = os.path.realpath("/usr/bin/python3")


@dataclass
class Tree:
    """A native tree (`upper`, over this machine's root), what of it is protected, and what becomes of it."""

    folder: Path
    runtime: Path
    cas: FakeCas
    las: FakeLas
    binary: str = PYTHON
    regions: dict[str, str] = field(default_factory=dict)
    closure: list[str] = field(default_factory=list)
    dlopen: int = 1
    lower: str = "/"
    mrenclave: str = ""
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    pwd: str = "/"
    memfd_noexec: int = 0

    def __post_init__(self) -> None:
        self.upper.mkdir(parents=True)

    @property
    def upper(self) -> Path:
        return self.folder / "upper"

    def at(self, path: str) -> Path:
        """The file of the upper layer."""
        return self.upper / path.lstrip("/")

    def native(self, path: str) -> Path:
        """The file before conversion: the upper layer's, else the lower's."""
        upper = self.at(path)
        return upper if os.path.lexists(upper) else Path(self.lower) / path.lstrip("/")

    def put(self, path: str, content: bytes | str | Path, mode: int = 0o644) -> Path:
        """Put a file into the native tree."""
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        os.utime(target, ns=(1_700_000_000_123_456_789,) * 2)
        return target

    def convert(self) -> None:
        """Turn the native tree into a sconified one, in place."""
        entries = _entries(self)
        protected = any(e.path == self.binary.encode() and e.protection is Protection.ENCRYPTED for e in entries.values())
        original = self.native(self.binary).read_bytes()
        for entry in entries.values():
            if entry.meta.kind is Kind.FILE and entry.protection is Protection.ENCRYPTED:
                self._store(entry)
        self._sconify(original, protected=protected)
        if entries:
            regions = [Region(path=b"/", protection=Protection.NONE)]
            regions += [
                Region(path=path.encode(), protection=CLASSES[name]) for path, name in self.regions.items() if path != "/"
            ]
            if "/" in self.regions:
                regions[0] = Region(path=b"/", protection=CLASSES[self.regions["/"]])
            manifest = Manifest(regions=Regions.of(regions), entries=tuple(entries[path] for path in sorted(entries)))
            stored = seal_manifest(KEY, manifest)
            self.put("/fspf/fs.fspf", stored)
            self.cas.service |= {"fspf_path": "/fspf/fs.fspf", "fspf_key": KEY.hex(), "fspf_tag": fspf_tag(stored).hex()}
        self.cas.service |= {"command": self.command, "environment": self.environment, "pwd": self.pwd}

    def _store(self, entry: ManifestEntry) -> None:
        path = entry.path.decode()
        sealed = seal(KEY, FILE_INFO, self.native(path).read_bytes())
        if entry.flags & Flag.STORED_X:
            self.put(f"/fspf/x/{x_name(KEY, entry.content)}", sealed)
            target = self.at(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if not self.at("/fspf/stub").exists():
                stub = io.BytesIO()
                write_sconified(self.runtime, stub, {})
                self.put("/fspf/stub", stub.getvalue(), 0o755)
            os.link(self.at("/fspf/stub"), target)
        else:
            self.put(path, sealed, entry.meta.mode)

    def _sconify(self, original: bytes, *, protected: bool) -> None:
        config = MeasuredConfig(
            heap=1 << 30, stack=1 << 20, dlopen=self.dlopen, fork=0, mprotect=0, threads=2, cas_spki=self.cas.spki,
            binary=MeasuredBinary(path=self.binary, sha256=hashlib.sha256(original).hexdigest(), size=len(original), protected=protected),
        )  # fmt: skip
        self.mrenclave = measure(self.runtime, config)
        contents: dict[str, bytes | Path] = {
            ".sconify.config": config.encode(),
            ".sconify.sig": build_sigstruct(self.mrenclave, debug_signer(), debug=True),
        }
        if not protected:
            contents[".sconify.elf"] = original
        out = io.BytesIO()
        write_sconified(self.runtime, out, contents)
        self.at(self.binary).unlink(missing_ok=True)
        self.put(self.binary, out.getvalue(), 0o755)

    def run(
        self, *, env: Mapping[str, str] | None = None, uid: int = 0, timeout: float = 20, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the entry binary as PID 1 of a chroot."""
        return subprocess.run(
            self.arguments(env or {}, uid), capture_output=True, text=True, timeout=timeout, check=False, **more
        )

    def arguments(self, env: Mapping[str, str], uid: int = 0) -> list[str]:
        root, work = self.folder / "root", self.folder / "work"
        root.mkdir(exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        variables = {
            "SCONE_CONFIG_ID": "ns/test/service",
            "SCONE_CAS_ADDR": f"127.0.0.1:{self.cas.port}",
            "SCONE_LAS_ADDR": f"127.0.0.1:{self.las.port}",
        } | dict(env)
        script = f"""
            mount -t overlay -o lowerdir={self.lower},upperdir={self.upper},workdir={work} overlay {root}
            mount -t proc proc {root}/proc
            [ {self.memfd_noexec} = 0 ] || echo {self.memfd_noexec} >{root}/proc/sys/vm/memfd_noexec
            mount --rbind /dev {root}/dev
            mount -t tmpfs -o mode=1777 tmpfs {root}/tmp
            exec env -i "$@" /usr/sbin/chroot --userspec={uid}:{uid} {root} {self.binary}
        """
        assignments = [f"{name}={value}" for name, value in variables.items()]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script, "sh", *assignments]


def _entries(tree: Tree) -> dict[bytes, ManifestEntry]:
    """The manifest's entries: everything below protected regions, the closure, the binary, and all their ancestors."""
    entries: dict[bytes, ManifestEntry] = {}
    for region, name in tree.regions.items():
        if name != "plain":
            _walk(tree, region, entries)
    for path in [*tree.closure, tree.binary]:
        for link, target in _links(tree, path):
            entries[link.encode()] = _entry(tree, link, Flag.PINNED)
            assert target
        real = _resolve(tree, path)
        flags = Flag.MAIN if real == tree.binary else Flag.CLOSURE
        if tree.regions or tree.closure:
            entries[real.encode()] = _entry(tree, real, flags)
    for path in list(entries):
        for ancestor in list(Path(path.decode()).parents)[:-1]:
            entries.setdefault(str(ancestor).encode(), _entry(tree, str(ancestor), Flag.PINNED))
    return entries


def _region(tree: Tree, path: str) -> Protection:
    for candidate in [path, *map(str, Path(path).parents)]:
        if candidate in tree.regions:
            return CLASSES[tree.regions[candidate]]
    return Protection.NONE


def _walk(tree: Tree, path: str, entries: dict[bytes, ManifestEntry]) -> None:
    if _region(tree, path) is Protection.NONE:
        return
    entries[path.encode()] = _entry(tree, path, Flag(0))
    native = tree.native(path)
    if native.is_dir() and not native.is_symlink():
        names = {item.name for item in native.iterdir()}
        lower = Path(tree.lower) / path.lstrip("/")
        if lower.is_dir():
            names |= {item.name for item in lower.iterdir()}
        for name in names:
            _walk(tree, f"{path.rstrip('/')}/{name}", entries)


def _entry(tree: Tree, path: str, flags: Flag) -> ManifestEntry:
    native = tree.native(path)
    details = native.lstat()
    kind = _KINDS[stat.S_IFMT(details.st_mode)]
    region = _region(tree, path)
    protection = region or (Protection.AUTHENTICATED if kind is Kind.FILE else Protection.NONE)
    if kind is Kind.FILE and protection is Protection.ENCRYPTED and details.st_mode & 0o111:
        flags |= Flag.STORED_X
    if region:
        flags &= ~Flag.PINNED
    meta = Entry(
        path=path.encode(), kind=kind, mode=details.st_mode & 0o7777, uid=details.st_uid, gid=details.st_gid, mtime=details.st_mtime_ns,
        size=details.st_size if kind is Kind.FILE else 0, target=bytes(native.readlink()) if kind is Kind.SYMLINK else b"",
        rdev=(os.major(details.st_rdev), os.minor(details.st_rdev)), xattrs=_attributes(native),
    )  # fmt: skip
    content = hashlib.sha256(native.read_bytes()).digest() if kind is Kind.FILE else b""
    return ManifestEntry(meta=meta, protection=protection, flags=flags, content=content)


def _attributes(native: Path) -> tuple[tuple[bytes, bytes], ...]:
    names = [name for name in os.listxattr(native, follow_symlinks=False) if name.startswith("user.")]
    return tuple((name.encode(), os.getxattr(native, name, follow_symlinks=False)) for name in sorted(names))


def _links(tree: Tree, path: str) -> Iterable[tuple[str, str]]:
    current = ""
    for name in path.strip("/").split("/"):
        current = f"{current}/{name}"
        native = tree.native(current)
        if native.is_symlink():
            target = str(native.readlink())
            yield current, target
            rest = path[len(current) :]
            yield from _links(tree, posixpath.normpath(posixpath.join(posixpath.dirname(current), target)) + rest)
            return


def _resolve(tree: Tree, path: str) -> str:
    for link, target in _links(tree, path):
        return _resolve(tree, posixpath.normpath(posixpath.join(posixpath.dirname(link), target)) + path[len(link) :])
    return path


def closure_of(program: str) -> list[str]:
    """The loader and the libraries that this machine's own loader finds."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    paths = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    return sorted(set(paths))
