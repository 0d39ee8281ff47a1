"""A folder as a base: what lies in it is one layer of the images that are built on it.

As a native image a folder has no layers: its files are taken one by one. Of a base the layers are delivered as they are, so
this one has a tar, made when somebody asks for it and kept in a file without a name as long as the source is open.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from sconify_tasks.image.exported import layer_of
from sconify_tasks.image.model import Layer, Sha256
from sconify_tasks.image.rootfs import RootfsSource
from sconify_tasks.image.tar_write import write_tar


class FolderBase(RootfsSource):
    """One layer, the same bytes for the same identity. A folder that changes meanwhile is an error."""

    _tar: BinaryIO | None = None
    _diff_id: Sha256 | None = None

    @property
    def diff_ids(self) -> tuple[Sha256, ...]:
        """The digest of the folder's tar."""
        return (self._written()[0],)

    @contextmanager
    def layer_files(self) -> Iterator[tuple[Layer, ...]]:
        """The folder's tar."""
        yield (layer_of(*self._written()),)

    def close(self) -> None:
        """Close the folder, and forget the tar."""
        super().close()
        if self._tar is not None:
            self._tar.close()
            self._tar = self._diff_id = None

    def _written(self) -> tuple[Sha256, BinaryIO]:
        _ = self.identity  # from here on, what is read must be what it was taken of
        with self._lock:
            if self._tar is None or self._diff_id is None:
                tar = cast("BinaryIO", tempfile.TemporaryFile(prefix="sconify-"))  # noqa: SIM115
                try:
                    self._diff_id = write_tar(self.in_layer_order(), tar).diff_id
                    tar.flush()
                except BaseException:
                    tar.close()
                    raise
                self._tar = tar
            return self._diff_id, self._tar
