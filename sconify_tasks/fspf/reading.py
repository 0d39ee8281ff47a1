"""A cursor over untrusted bytes: nothing is taken, or allocated, beyond what is there."""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import Any

from sconify_tasks.fspf.errors import MalformedError

U16, U32 = Struct("<H"), Struct("<I")


class Cursor:
    """Take fields one after the other; MalformedError("truncated") where the bytes end too early."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def unpack(self, layout: Struct) -> tuple[Any, ...]:
        """Take a fixed group of integers."""
        try:
            fields = layout.unpack_from(self._data, self._position)
        except struct_error:
            raise MalformedError("truncated", f"the data ends inside a field at byte {self._position}") from None
        self._position += layout.size
        return fields

    @property
    def following(self) -> int:
        """The next byte, which stays; -1 at the end."""
        return self._data[self._position] if self._position < len(self._data) else -1

    def take(self, length: int) -> bytes:
        """Take `length` bytes."""
        end = self._position + length
        if end > len(self._data):
            raise MalformedError("truncated", f"a field of {length} bytes at byte {self._position} goes beyond the end")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def take_prefixed(self, layout: Struct) -> bytes:
        """Take a length and that many bytes."""
        (length,) = self.unpack(layout)
        return self.take(length)

    def finish(self) -> None:
        """Refuse bytes that nothing asked for."""
        if self._position != len(self._data):
            raise MalformedError("trailing", f"{len(self._data) - self._position} bytes follow the last field")
