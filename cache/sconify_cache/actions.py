"""The action cache: which action yielded what. Sealed records (`record.py`) in a local index (`index.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sconify_cache.digest import Digest
from sconify_cache.index import Index
from sconify_cache.keys import JSON, canonical
from sconify_cache.record import VERSION, Record, Records, seal, seal_record, unseal, unseal_record


class ActionCache(Records):
    """A Records in `folder`, and an index of each scope's last actions. Safe for threads and for processes.

    `mac_key` (32 bytes) is the project's: what it did not seal does not exist. `folder` is made by the first record.
    """

    def __init__(self, folder: Path, *, mac_key: bytes) -> None:
        self._index = Index(folder)
        self._mac_key = mac_key

    def lookup(self, key: Digest) -> Record | None:
        """Return the record of an action; None where there is none that this project's key sealed for it."""
        return self._unsealed_record(self._index.glance(key), key) or self._unsealed_record(self._index.read(key), key)

    def record(self, record: Record, *, scope: str | None = None) -> None:
        """Keep a record; with a scope, also as what that used last. Returns when both would survive kill -9."""
        texts: dict[str, str] = {record.key: seal_record(record, self._mac_key)}
        if scope is not None:
            name, text = self._pointer(scope, record)
            texts[name] = text
        self._index.write(texts)

    def remember(self, scope: str, record: Record) -> None:
        """Note that `record` is what `scope` (an image) used last for its step. Writes only where that is news."""
        name, text = self._pointer(scope, record)
        if self._index.glance(name) != text and self._index.read(name) != text:
            self._index.write({name: text})

    def latest(self, scope: str, step: str) -> Record | None:
        """Return what `scope` used last for a step, to tell what changed since; None where nothing is known."""
        name = _pointer_name(scope, step)
        wanted = (VERSION, "latest", scope, step)
        for read in (self._index.glance, self._index.read):
            body = self._unsealed(read(name))
            if body is not None and (body.get("v"), body.get("kind"), body.get("scope"), body.get("step")) == wanted:
                return self.lookup(Digest(body["key"]))
        return None

    def records(self) -> Iterator[Record]:
        """Every record, authenticated."""
        for row in self._index.rows():
            with suppress(ValueError):
                found = self._unsealed_record(row.text, Digest(row.name))
                if found is not None:
                    yield found

    def close(self) -> None:
        """Close the connections of this thread; the cache can be used again."""
        self._index.close()

    def _pointer(self, scope: str, record: Record) -> tuple[str, str]:
        body: dict[str, JSON] = {"v": VERSION, "kind": "latest", "scope": scope, "step": record.step, "key": record.key}
        return _pointer_name(scope, record.step), seal(body, self._mac_key)

    def _unsealed(self, text: object) -> dict[str, Any] | None:
        return unseal(text, self._mac_key)

    def _unsealed_record(self, text: object, key: Digest) -> Record | None:
        return unseal_record(text, self._mac_key, key)


def _pointer_name(scope: str, step: str) -> str:
    return "latest:" + canonical([scope, step]).decode()
