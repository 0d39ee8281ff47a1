"""A store in a folder: one plain file per blob, `blobs/ab/cdef…`.

Writing goes to `tmp/` (see `scratch.py`) and ends in a rename, so kill -9 at any moment leaves complete blobs and some
scratch that the next run removes. Data is not fsynced before the rename: that would cost more than the build saves.
After a power cut a blob may therefore be empty or short; `has` refuses empty ones and verification finds the rest,
which then count as absent.

Modes: public blobs 0444, private ones 0400, the folder 0700. Blobs may be hard-linked, never written in place.
"Last use" is the access time, set by hand and at most once a day, so that a build that finds everything writes nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from blake3 import blake3

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.folder import disk_errors, make_private, open_regular, store_error
from sconify_cache.scratch import Scratch
from sconify_cache.store import BlobInfo, MissingBlobError, PrunableStore

USE_GRANULARITY_NS: Final = 24 * 3600 * 10**9
_BUFFER: Final = 1 << 17
_EMPTY: Final = Digest(blake3(b"").hexdigest())
_Fingerprint = tuple[int, int, int, int, int, int]


def hash_stream(stream: BinaryIO) -> Digest:
    """BLAKE3 of what is left in a stream. Plain reads: an mmap of a file that shrinks would kill the process."""
    hasher = blake3()
    buffer = memoryview(bytearray(_BUFFER))
    while count := cast("int", stream.readinto(buffer)):  # type: ignore[attr-defined]
        hasher.update(buffer[:count])
    return Digest(hasher.hexdigest())


def _fingerprint(found: os.stat_result) -> _Fingerprint:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_nlink, found.st_ctime_ns)


def _same(known: _Fingerprint | None, found: _Fingerprint) -> bool:
    """Whether nobody wrote to a file. A link that was made of it sets its change time, as delivering a layer does."""
    return known == found or (known is not None and known[:4] == found[:4] and known[4] != found[4])


class _Writer:
    """Hashes while it writes. Only errors of the store's own disk become StoreErrors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hasher = blake3()
        self._digest: Digest | None = None
        self.size = 0
        with disk_errors(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=_BUFFER)

    @property
    def digest(self) -> Digest:
        """Known once the block has ended."""
        if self._digest is None:
            message = "the digest is known when the writer's block has ended"
            raise ValueError(message)
        return self._digest

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append and hash."""
        with disk_errors(self._path):
            self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)
        return len(data)

    def so_far(self) -> Digest:
        """Hash of what was written until now."""
        return Digest(self._hasher.hexdigest())

    def finish(self) -> Digest:
        """Close the file and tell its digest."""
        with disk_errors(self._path):
            self._file.close()
        return Digest(self._hasher.hexdigest())

    def seal(self, digest: Digest) -> None:
        """Publish the digest: the blob is committed."""
        self._digest = digest

    def drop(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink()


class LocalStore(PrunableStore):
    """A PrunableStore in `folder`, which is made when first written to. Safe for threads and for processes."""

    def __init__(self, folder: Path, *, now: Callable[[], int] = time.time_ns) -> None:
        self._folder = folder
        self._blobs = folder / "blobs"
        self._damaged = folder / "damaged"
        self._now = now
        self._scratch = Scratch(folder / "tmp")
        self._made = False
        self._making = threading.Lock()
        # Which file of a digest this process has verified. One assignment per entry: safe without a lock.
        self._verified: dict[Digest, _Fingerprint] = {}

    # Reading

    def has(self, digest: Digest) -> bool:
        """Whether a file that can be this blob is there; marks it as used."""
        try:
            found = self._stat(digest)
        except MissingBlobError:
            return False
        self._mark_used(digest, found)
        return True

    def size(self, digest: Digest) -> int:
        """Length of the file."""
        return self._stat(digest).st_size

    def get(self, digest: Digest) -> bytes:
        """Read and verify all of it."""
        with self._open_file(digest) as stream, disk_errors(self._locate(digest)):
            self._mark_used(digest, os.fstat(stream.fileno()))
            data = stream.read()
            if blake3(data).hexdigest() != digest:
                raise self._set_aside(digest, os.fstat(stream.fileno()))
            return data

    def open(self, digest: Digest) -> BinaryIO:
        """Open it, and verify it where this process has not yet."""
        stream = self._open_file(digest)
        try:
            self._mark_used(digest, os.fstat(stream.fileno()))
            self._verify(digest, stream)
        except BaseException:
            stream.close()
            raise
        return stream

    def is_private(self, digest: Digest) -> bool:
        """Whether only its owner may read it."""
        return not self._stat(digest).st_mode & 0o004

    def path(self, digest: Digest) -> Path:
        """Path of the verified file."""
        self.open(digest).close()
        return self._locate(digest)

    # Writing

    def put(self, data: bytes, *, private: bool = False) -> Digest:
        """Write it unless a good copy is there."""
        digest = Digest(blake3(data).hexdigest())
        if not self._holds(digest, private=private):
            with self.writer(private=private) as blob:
                blob.write(data)
        return digest

    @contextmanager
    def writer(self, *, private: bool = False) -> Iterator[_Writer]:
        """Write to scratch, rename when the block ends well."""
        self._prepare()
        temporary = self._scratch.new()
        blob = _Writer(temporary)
        try:
            yield blob
            digest = blob.finish()
            self._commit(temporary, digest, private=private)
        except BaseException:
            blob.drop()
            raise
        blob.seal(digest)

    def adopt(self, path: Path, *, private: bool = False) -> Digest:
        """Hash a file of ours where it lies, rename it."""
        self._prepare()
        with disk_errors(path):
            stream = open_regular(path)
            if stream is None:
                raise StoreError(f"cache: {path} is not a regular file", hint="only finished files can be taken over")
            with stream:
                digest = hash_stream(stream)
                self._commit(path, digest, private=private)
        return digest

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a folder in `tmp/` for the length of the block."""
        self._prepare()
        folder = self._scratch.new()
        with disk_errors(folder):
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # Cleaning

    def iterate(self) -> Iterator[BlobInfo]:
        """List the folders; foreign files are passed over."""
        with disk_errors(self._blobs):
            fans = sorted(self._blobs.iterdir()) if self._blobs.is_dir() else []
        for fan in fans:
            with disk_errors(fan):
                entries = sorted(os.scandir(fan), key=lambda entry: entry.name) if fan.is_dir() else []
            for entry in entries:
                with suppress(ValueError, FileNotFoundError):  # foreign files; blobs that went meanwhile
                    digest, found = Digest(fan.name + entry.name), entry.stat(follow_symlinks=False)
                    private = not found.st_mode & 0o004
                    yield BlobInfo(digest=digest, size=found.st_size, used_ns=found.st_atime_ns, private=private)

    def delete(self, digest: Digest, *, spare: Callable[[int], bool] | None = None) -> bool:
        """Ask `spare`; move it away, ask once more, then delete it or move it back.

        The first question keeps what is in use where it is: who opens it between the two moves would not find it.
        """
        path = self._locate(digest)
        with disk_errors(path):
            try:
                if spare is not None and spare(path.lstat().st_atime_ns):
                    return False
            except FileNotFoundError:
                return False
        self._prepare()
        aside = self._scratch.new()
        with disk_errors(path):
            try:
                path.rename(aside)
            except FileNotFoundError:
                return False
            if spare is not None and spare(aside.lstat().st_atime_ns):
                aside.rename(path)
                return False
            aside.unlink()
            self._verified.pop(digest, None)
            return True

    def check(self, digest: Digest, *, repair: bool = True) -> int:
        """Hash it again."""
        self._verified.pop(digest, None)
        with self._open_file(digest, repair=repair) as stream, disk_errors(self._locate(digest)):
            found = os.fstat(stream.fileno())
            if hash_stream(stream) != digest:
                raise self._damage(digest, found, repair=repair)
            return found.st_size

    def sweep(self) -> None:
        """Remove what killed processes left in `tmp/`. Call it once at the start of a run: it costs one listing."""
        self._scratch.sweep()

    def close(self) -> None:
        """Remove this process's own folder in `tmp/`, in which nobody may work any more. The store may be used again."""
        self._scratch.close()

    def discard_damaged(self) -> int:
        """Empty `damaged/`."""
        with disk_errors(self._damaged):
            files = list(self._damaged.iterdir()) if self._damaged.is_dir() else []
            for file in files:
                if file.is_dir() and not file.is_symlink():
                    shutil.rmtree(file)
                else:
                    file.unlink(missing_ok=True)
        return len(files)

    # The inside

    def _locate(self, digest: Digest) -> Path:
        # Digest() again: a plain str that only claims to be one must not become a path.
        name = Digest(digest)
        return self._blobs / name[:2] / name[2:]

    def _stat(self, digest: Digest) -> os.stat_result:
        """Stat of a blob that can be what its name says: a regular file, and not empty unless its digest says so."""
        path = self._locate(digest)
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingBlobError(digest) from None
        except OSError as error:
            raise store_error(error, path) from error
        if not stat.S_ISREG(found.st_mode) or (found.st_size == 0) != (digest == _EMPTY):
            raise MissingBlobError(digest, damaged=True)
        return found

    def _open_file(self, digest: Digest, *, repair: bool = True) -> BinaryIO:
        path = self._locate(digest)
        try:
            found = self._stat(digest)
            stream = open_regular(path)
        except MissingBlobError as error:
            raise (self._damage(digest, None, repair=repair) if error.damaged else error) from None
        except FileNotFoundError:
            raise MissingBlobError(digest) from None
        except OSError as error:
            raise store_error(error, path) from error
        if stream is None:
            raise self._damage(digest, found, repair=repair)
        return stream

    def _damage(self, digest: Digest, found: os.stat_result | None, *, repair: bool) -> MissingBlobError:
        return self._set_aside(digest, found) if repair else MissingBlobError(digest, damaged=True)

    def _verify(self, digest: Digest, stream: BinaryIO) -> None:
        fingerprint = _fingerprint(os.fstat(stream.fileno()))
        if _same(self._verified.get(digest), fingerprint):
            self._verified[digest] = fingerprint
            return
        with disk_errors(self._locate(digest)):
            if hash_stream(stream) != digest:
                raise self._set_aside(digest, os.fstat(stream.fileno()))
            stream.seek(0)
        self._verified[digest] = fingerprint

    def _set_aside(self, digest: Digest, found: os.stat_result | None = None) -> MissingBlobError:
        """Move what is damaged (`found`, if it was opened) out of the way, unless a good blob took its place, and say so."""
        self._verified.pop(digest, None)
        path = self._locate(digest)
        with suppress(OSError):  # on a read-only disk it stays, and stays refused
            if found is None or os.path.samestat(path.lstat(), found):
                self._damaged.mkdir(mode=0o700, exist_ok=True)
                path.rename(self._damaged / f"{digest}.{os.urandom(4).hex()}")
        return MissingBlobError(digest, damaged=True)

    def _holds(self, digest: Digest, *, private: bool) -> bool:
        """Whether a verified blob is there already and open enough."""
        try:
            self.open(digest).close()
            return private or bool(self._stat(digest).st_mode & 0o004)
        except MissingBlobError:
            return False

    def _mark_used(self, digest: Digest, found: os.stat_result) -> None:
        now = self._now()
        if now - found.st_atime_ns >= USE_GRANULARITY_NS:
            with suppress(OSError):  # read-only or somebody else's: then its age is not ours to tell
                os.utime(self._locate(digest), ns=(now, found.st_mtime_ns), follow_symlinks=False)

    def _prepare(self) -> None:
        with self._making:
            if not self._made:
                make_private(self._folder)
                self._made = True

    def _commit(self, temporary: Path, digest: Digest, *, private: bool) -> None:
        final = self._locate(digest)
        with suppress(MissingBlobError), self._open_file(digest) as there:
            private = private and not os.fstat(there.fileno()).st_mode & 0o004
        with disk_errors(final):
            now = self._now()
            os.utime(temporary, ns=(now, now))
            temporary.chmod(0o400 if private else 0o444)
            # Always replaced, never skipped: what is there under this name may be damaged, what we bring is not.
            try:
                temporary.rename(final)
            except FileNotFoundError:
                final.parent.mkdir(parents=True, exist_ok=True)
                temporary.rename(final)
        self._verified.pop(digest, None)
        with suppress(MissingBlobError):  # gone already: read, it will be missed
            self._verified[digest] = _fingerprint(self._stat(digest))  # hashed for this: as good as read again
