"""`oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`: an image in an OCI image layout, or in a tar of one."""

from __future__ import annotations

from pathlib import Path

from sconify_tasks.errors import VerificationError
from sconify_tasks.image.archive import ArchiveFiles
from sconify_tasks.image.choose import choose
from sconify_tasks.image.config import parse_config
from sconify_tasks.image.extent import Extent, unpack
from sconify_tasks.image.files import FolderFiles
from sconify_tasks.image.layered import LayeredSource
from sconify_tasks.image.layout import OciLayout
from sconify_tasks.image.learned import LayerMemory
from sconify_tasks.image.manifest import HINT, Blob, check_layer_type, descriptor, items


class OciSource(LayeredSource):
    """One image of a layout. `manifest` and `layers` are its descriptors, in the layout's own compression."""

    def __init__(
        self,
        place: Path,
        tag: str = "",
        *,
        platform: str = "linux/amd64",
        archive: bool = False,
        memory: LayerMemory | None = None,
    ) -> None:
        self._layout = open_layout(place, archive=archive)
        name = self._layout.files.label + (f":{tag}" if tag else "")
        try:
            self.manifest = choose(self._layout, tag, platform, name)
            document = self._layout.document(self.manifest)
            config = parse_config(self._layout.bytes(descriptor(document.get("config"))))
            self.layers = tuple(descriptor(item) for item in items(document.get("layers")))
            super().__init__(name=name, config=config, platform=platform, memory=memory)
            _check_layers(self.layers, len(self.diff_ids), name)
        except BaseException:
            self._layout.files.close()
            raise

    def open_layer(self, number: int) -> Extent:
        """Open one layer, verified and uncompressed."""
        blob = self.layers[number]
        return unpack(self.blob(blob), blob=blob, diff_id=self.diff_ids[number], what=f"layer {blob.digest}")

    @property
    def documents(self) -> tuple[str, ...]:
        """Names of the layout's files that identity and config rest on, beside index.json."""
        return tuple(self._layout.documents)

    def blob(self, blob: Blob) -> Extent:
        """Open a blob of this image as it is; whoever copies it verifies it."""
        return self._layout.extent(blob)

    def close(self) -> None:
        """Forget the unpacked layers, and the archive."""
        super().close()
        self._layout.files.close()


def open_layout(place: Path, *, archive: bool = False) -> OciLayout:
    """Open a layout folder, or an archive of one."""
    if not archive:
        return OciLayout(FolderFiles(place, label=f"oci:{place}"))
    files = ArchiveFiles(place, label=f"oci-archive:{place}")
    try:
        return OciLayout(files)
    except BaseException:
        files.close()
        raise


def _check_layers(layers: tuple[Blob, ...], expected: int, name: str) -> None:
    if len(layers) != expected:
        msg = f"{name}: {len(layers)} layers in the manifest, {expected} in the config"
        raise VerificationError(msg, hint=HINT)
    for blob in layers:
        check_layer_type(blob)
