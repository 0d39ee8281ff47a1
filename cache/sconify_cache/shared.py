"""Records in a folder that machines share, one file each: `actions/ab/cdef….json`. Public steps only.

The folder is nobody's in particular, so nothing in it is believed: a record counts only with this project's MAC for
the very action asked for. Sizes are bounded; links, fifos and devices are not opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sconify_cache.digest import Digest
from sconify_cache.errors import StoreError
from sconify_cache.folder import disk_errors, open_regular, store_error
from sconify_cache.record import Record, Records, seal_record, unseal_record
from sconify_cache.scratch import Scratch

_LARGEST: Final = 4 << 20


class SharedRecords(Records):
    """A Records in a shared folder."""

    def __init__(self, folder: Path, *, mac_key: bytes) -> None:
        self._folder = folder / "actions"
        self._mac_key = mac_key
        self._scratch = Scratch(folder / "tmp", mode=0o777)

    def lookup(self, key: Digest) -> Record | None:
        """Return the record of an action; None for anything but ours."""
        path = self._locate(key)
        try:
            stream = open_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise store_error(error, path) from error
        if stream is None:
            return None
        with disk_errors(path), stream:
            data = stream.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            return None
        return unseal_record(data.decode("utf-8", "surrogateescape"), self._mac_key, key)

    def record(self, record: Record) -> None:
        """Publish a record. Raises StoreError for a secret one."""
        if record.secret:
            raise StoreError(
                f"cache: the secret record of step {record.step} was to be shared", hint="this is a bug: report it"
            )
        path = self._locate(record.key)
        data = seal_record(record, self._mac_key).encode()
        temporary = self._scratch.new()
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                temporary.chmod(0o444)
                temporary.rename(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def _locate(self, key: Digest) -> Path:
        name = Digest(key)
        return self._folder / name[:2] / f"{name[2:]}.json"


class LayeredRecords(Records):
    """A Records over others: near is written and asked first, far ones after it; public records go to `publish`.

    Failures of far ones never stop a build: they are handed to `trouble` and count as a miss.
    """

    def __init__(
        self,
        near: Records,
        far: Sequence[Records] = (),
        *,
        publish: Sequence[Records] = (),
        trouble: Callable[[StoreError], None] = lambda _error: None,
    ) -> None:
        self._near = near
        self._far = tuple(far)
        self._publish = tuple(publish)
        self._trouble = trouble

    def lookup(self, key: Digest) -> Record | None:
        """Near, else the first far one that has it; what was found far is kept near."""
        found = self._near.lookup(key)
        if found is not None:
            return found
        for records in self._far:
            try:
                found = records.lookup(key)
            except StoreError as error:
                self._trouble(error)
                continue
            if found is not None:
                self._near.record(found)
                return found
        return None

    def record(self, record: Record) -> None:
        """Keep near, and publish unless it is secret."""
        self._near.record(record)
        if record.secret:
            return
        for records in self._publish:
            try:
                records.record(record)
            except StoreError as error:
                self._trouble(error)
