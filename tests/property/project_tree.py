"""A project folder that is edited at random: a native image as a folder, a base image of layers, a project file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from build.small_image import CONFIG, Place, make_native, write, write_config
from hypothesis import strategies as st
from parts.images import file, folder, layer_bytes

_NAMES = ("one", "two", "sub/three", "sub/deep/four", "été", "run.sh")
_TOPS = ("app", "data", "plain", "unused")
_SIZES = (0, 1, 100, 4096, 65_535, 65_536, 65_537, 200_000)
_MODES = (0o600, 0o644, 0o755, 0o444)
_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "dir": (["/app"], ["/app", "/data"], ["/data", "/app/sub"], ["/"]),
    "plain": ([], ["/plain"], ["/plain/sub"]),
    "heap": ("64M", "1G"),
    "dlopen": (0, 1, 2),
    "env": ([], ["A=1"], ["A=2", "B=3"]),
    "command": ("/bin/prog", "/bin/prog --loud"),
    "service-name": ("service", "web"),
    "base": ("scratch", "base"),
    "fork": (0, 1),
}


@dataclass(frozen=True, slots=True)
class Write:
    """A file gets this content; what is in the way goes."""

    path: str
    seed: int
    size: int

    def apply(self, tree: Tree) -> None:
        path = tree.native / self.path
        _clear(path)
        write(path, sha256(str(self.seed).encode()).digest() * (self.size // 32) + b"." * (self.size % 32))


@dataclass(frozen=True, slots=True)
class Remove:
    """A file or folder goes."""

    path: str

    def apply(self, tree: Tree) -> None:
        _clear(tree.native / self.path)


@dataclass(frozen=True, slots=True)
class Mode:
    """A file's mode changes, and nothing else."""

    path: str
    mode: int

    def apply(self, tree: Tree) -> None:
        path = tree.native / self.path
        if path.is_file() and not path.is_symlink():
            path.chmod(self.mode)


@dataclass(frozen=True, slots=True)
class Link:
    """A symlink stands where a file was."""

    path: str
    target: str

    def apply(self, tree: Tree) -> None:
        path = tree.native / self.path
        _clear(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(self.target)


@dataclass(frozen=True, slots=True)
class Move:
    """A file gets another name."""

    path: str
    to: str

    def apply(self, tree: Tree) -> None:
        source, target = tree.native / self.path, tree.native / self.to
        if source.is_file() and source != target:
            _clear(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)


@dataclass(frozen=True, slots=True)
class Choose:
    """An option of the project file changes."""

    option: str
    value: Any

    def apply(self, tree: Tree) -> None:
        tree.options[self.option] = self.value


@dataclass(frozen=True, slots=True)
class Stack:
    """The base image consists of these layers; equal numbers are equal layers."""

    layers: tuple[int, ...]

    def apply(self, tree: Tree) -> None:
        tree.layers = self.layers


@dataclass(frozen=True, slots=True)
class Native:
    """The native image's own environment changes."""

    value: str

    def apply(self, tree: Tree) -> None:
        tree.environment = self.value


Edit = Write | Remove | Mode | Link | Move | Choose | Stack | Native

_paths = st.builds(lambda top, name: f"{top}/{name}", st.sampled_from(_TOPS), st.sampled_from(_NAMES))
EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.builds(Write, path=_paths, seed=st.integers(0, 3), size=st.sampled_from(_SIZES)),
    st.builds(
        Write, path=st.sampled_from(("app/secret", "app/sub/other")), seed=st.integers(0, 3), size=st.sampled_from(_SIZES)
    ),
    st.builds(Remove, path=_paths),
    st.builds(Mode, path=_paths, mode=st.sampled_from(_MODES)),
    st.builds(Link, path=_paths, target=st.sampled_from(("one", "secret", "/plain/readme", "../data"))),
    st.builds(Move, path=_paths, to=_paths),
    st.sampled_from([Choose(name, value) for name, values in _OPTIONS.items() for value in values]),
    st.builds(Stack, layers=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True).map(tuple)),
    st.builds(Native, value=st.sampled_from(("x", "y"))),
)


@dataclass(slots=True, kw_only=True)
class Tree:
    """What a developer edits. `copy` is the same project in another folder."""

    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    layers: tuple[int, ...] = (0,)
    environment: str = "x"

    @property
    def native(self) -> Path:
        return self.folder / "native"

    @classmethod
    def make(cls, folder: Path, program: Path) -> Tree:
        folder.mkdir(parents=True)
        make_native(folder / "native", program)
        write(folder / "native" / "data" / "kept", b"kept")
        return cls(folder=folder)

    def copy(self, folder: Path) -> Tree:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder, symlinks=True)
        return Tree(folder=folder, options=self.options, layers=self.layers, environment=self.environment)

    def save(self, place: Place) -> Path:
        """Write the base image, the native config and the project file for who builds in `place`."""
        config = {**CONFIG, "config": {**CONFIG["config"], "Env": [f"NATIVE={self.environment}"]}}  # type: ignore[dict-item]
        write_config(self.native, config)
        write_layout(self.folder / "base", self.layers)
        image = {
            "from": f"dir:{self.native}",
            "to": f"oci:{place.layout}:small",
            "base": "scratch",
            "binary": "/bin/prog",
            "dir": ["/app"],
            "allow-debug-mode": True,
            **self.options,
        }
        if image["base"] == "base":
            image["base"] = f"oci:{self.folder / 'base'}"
        path = self.folder / "sconify.yaml"
        path.write_text(yaml.safe_dump({"version": 1, "project": "tests", "images": {"small": image}}, allow_unicode=True))
        return path


def _clear(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    for parent in path.parents:
        if parent.is_symlink() or parent.is_file():
            parent.unlink()


def write_layout(folder_: Path, numbers: tuple[int, ...]) -> None:
    """A real OCI layout of small layers."""
    shutil.rmtree(folder_, ignore_errors=True)
    blobs = folder_ / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    layers = [put(_layer(number), "layer.v1.tar") for number in numbers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [f"BASE={len(numbers)}"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": layers,
    }
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (folder_ / "index.json").write_text(json.dumps(index))
    (folder_ / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _layer(number: int) -> bytes:
    name = f"base{number}".encode()
    return layer_bytes(folder(b"/etc"), file(b"/etc/" + name, name * 100), folder(b"/bin"), file(b"/bin/" + name, name))
