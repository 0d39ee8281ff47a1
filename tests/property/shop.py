"""A project of several images that is edited at random: a root file, a part that it includes, two natives, a base of layers."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from build.small_image import CONFIG, make_native, write, write_config
from hypothesis import strategies as st
from property.project_tree import Mode, Move, Remove, Stack, Write, write_layout

FIRST = ("api", "web", "fs", "part")
"""Made from natives alone: as many as two jobs need to be worth worker processes."""
MORE = ("extra", "next")
_WRITTEN_AT = 1_700_000_000
_SOURCES = ("native", "base", "part", "sconify.yaml")
_DEFAULTS = {
    "base": "oci:base",
    "binary": "/bin/prog",
    "dir": ["/app"],
    "heap": "64M",
    "allow-debug-mode": True,
    "disable-pie-check": True,
}
_IMAGES: dict[str, dict[str, Any]] = {
    "api": {"from": "dir:native/one", "plain": ["/plain"], "plain-file": ["/bin/other"], "env": ["MODE=${MODE:-none}"]},
    "web": {"from": "dir:native/one", "dir": ["/data"]},
    "fs": {"from": "dir:native/two", "binary-fs": True, "dir": [], "fs-dir": ["/app"]},
    "part": {"from": "dir:../native/two"},
    "extra": {"from": "dir:native/two", "heap": "${HEAP:-128M}"},
    "next": {"from": "oci:out/api:1", "binary": "/bin/other", "command": "/bin/other", "dir": ["/plain"]},
}
Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choose:
    """An option of one image changes, of the defaults, or of the part's defaults; None takes it out."""

    where: str
    option: str
    value: Any

    def apply(self, shop: Shop) -> None:
        found = shop.options.setdefault(self.where, {})
        if self.value is None:
            found.pop(self.option, None)
        else:
            found[self.option] = self.value


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment that the project file names; empty where it is not set."""

    name: str
    value: str

    def apply(self, shop: Shop) -> None:
        shop.variables[self.name] = self.value


@dataclass(frozen=True, slots=True)
class Toggle:
    """An image comes, or goes."""

    image: str

    def apply(self, shop: Shop) -> None:
        shop.images ^= {self.image}


@dataclass(frozen=True, slots=True)
class Lose:
    """Something that was delivered is gone: from an image's layout, or from its build resources."""

    path: str

    def apply(self, shop: Shop) -> None:
        for path in sorted(shop.folder.glob(self.path))[:1]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


Edit = Write | Remove | Mode | Move | Choose | Stack | Variable | Toggle | Lose

_files = st.sampled_from(
    [
        f"{native}/{path}"
        for native in ("one", "two")
        for path in ("app/secret", "app/sub/other", "app/new", "data/kept", "data/new", "plain/readme", "unused/file")
    ]
)
_LOST = ("out/{}", "out/{}/index.json", "out/{}/blobs/sha256/*", "build-resources/{}/session.yml", "build-resources/{}")
EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.builds(Write, path=_files, seed=st.integers(0, 2), size=st.sampled_from((0, 100, 65_536, 70_000))),
    st.builds(Remove, path=_files),
    st.builds(Mode, path=_files, mode=st.sampled_from((0o600, 0o644, 0o755))),
    st.builds(Move, path=_files, to=_files),
    st.builds(Choose, where=st.sampled_from(FIRST), option=st.just("heap"), value=st.sampled_from(("1G", "2G", None))),
    st.sampled_from([Choose("web", "dir", ["/data", "/plain"]), Choose("web", "dir", ["/data"]), Choose("api", "fork", 1)]),
    st.sampled_from([Choose("defaults", "heap", "256M"), Choose("defaults", "dlopen", 2), Choose("defaults", "dlopen", None)]),
    st.sampled_from([Choose("part defaults", "env", ["P=${MODE:-p}"]), Choose("part defaults", "heap", "512M")]),
    st.sampled_from([Choose("defaults", "base", "scratch"), Choose("defaults", "base", "oci:base")]),
    st.builds(Stack, layers=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True).map(tuple)),
    st.builds(Variable, name=st.just("MODE"), value=st.sampled_from(("", "a", "b"))),
    st.builds(Variable, name=st.just("HEAP"), value=st.sampled_from(("", "1G"))),
    st.builds(Toggle, image=st.sampled_from((*MORE, "web"))),
    st.builds(Lose, path=st.sampled_from([lost.format(image) for lost in _LOST for image in (*FIRST, *MORE)])),
)


@dataclass(slots=True, kw_only=True)
class Shop:
    """The project in one folder. What is delivered goes there too, as `to` is seen from the file that writes it."""

    folder: Path
    images: set[str] = field(default_factory=lambda: set(FIRST))
    options: dict[str, Options] = field(default_factory=dict)
    layers: tuple[int, ...] = (0,)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def native(self) -> Path:
        return self.folder / "native"

    @classmethod
    def make(cls, folder: Path, program: Path) -> Shop:
        for number, name in enumerate(("one", "two")):
            native = make_native(folder / "native" / name, program)
            shutil.copy2(native / "bin" / "prog", native / "bin" / "other")
            write(native / "data" / "kept", b"kept %d" % number)
            write_config(native, CONFIG)
        shop = cls(folder=folder)
        shop.save()
        return shop

    def copy(self, folder: Path) -> Shop:
        """The same project in another folder, where nothing was delivered yet."""
        folder.mkdir(exist_ok=True)
        for name in _SOURCES:
            source = self.folder / name
            shutil.copytree(source, folder / name, symlinks=True) if source.is_dir() else shutil.copy2(source, folder / name)
        options = {where: dict(chosen) for where, chosen in self.options.items()}
        variables = dict(self.variables)
        return Shop(folder=folder, images=set(self.images), options=options, layers=self.layers, variables=variables)

    def save(self) -> None:
        """Write what the edits chose. Files that say so already are not touched: what rests on them may stay settled."""
        root = {
            "version": 1,
            "project": "many",
            "include": "part/sconify.yaml",
            "defaults": _DEFAULTS | self.options.get("defaults", {}),
            "images": {name: self._image(name, "out") for name in _IMAGES if name in self.images and name != "part"},
        }
        part = {
            "version": 1,
            "defaults": {"env": ["P=p"]} | self.options.get("part defaults", {}),
            "images": {"part": self._image("part", "../out")},
        }
        for name, document in {"sconify.yaml": root, "part/sconify.yaml": part}.items():
            _put(self.folder / name, yaml.safe_dump(document))
        if _put(self.folder / "base-layers", repr(self.layers)):
            write_layout(self.folder / "base", self.layers)
        for path in (self.native, *self.native.rglob("*")):
            if path.lstat().st_mtime != _WRITTEN_AT:  # folders and links: their times are part of an image
                os.utime(path, (_WRITTEN_AT, _WRITTEN_AT), follow_symlinks=False)

    def _image(self, name: str, out: str) -> Options:
        return {**_IMAGES[name], "to": f"oci:{out}/{name}:1", **self.options.get(name, {})}


def _put(path: Path, text: str) -> bool:
    """Whether the file had to be written."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return True
