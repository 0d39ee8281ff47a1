"""One `sconify.yaml`, read for itself: a stranger's text, of bounded size, every key and value of it checked.

A file with `project` is a project's root; one without is a part, which another one includes. Names of files are seen from
the folder of the file that writes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from sconify_tasks.errors import UsageError
from sconify_tasks.interpolation import Variables
from sconify_tasks.option_nodes import Layer, read_options
from sconify_tasks.schema import MAX_EPOCH, NAME_PATTERN
from sconify_tasks.yaml_nodes import Node, load, suggestion

FILE_NAME = "sconify.yaml"
MAX_SIZE = 4 << 20
MAX_TEMPLATES = 1000
MAX_EXTENDS = 16
_EXTENDS = "extends"
_TOP_LEVEL = ("version", "project", "key-epoch", "include", "defaults", "templates", "images")
_NAME = re.compile(NAME_PATTERN)
EXAMPLE = {
    "version": "write version: 1",
    "project": "write project: NAME",
    "images": "write images: {NAME: {from: NATIVE_IMAGE, to: TO_IMAGE, binary: BINARY}}",
}


class Extending(Struct, frozen=True, kw_only=True):
    """A template or an image: what it says itself, and the template that it says it on top of."""

    node: Node
    layer: Layer
    extends: str | None


class ProjectFile(Struct, frozen=True, kw_only=True):
    """A file, read. `project` is None in a part of a project. `include` holds the patterns."""

    path: Path
    project: str | None
    key_epoch: int | None
    include: tuple[Node, ...]
    defaults: Layer
    templates: Mapping[str, Extending]
    images: Mapping[str, Extending]


def read_file(path: Path, *, most: int = MAX_SIZE) -> bytes:
    """Return the bytes of a project file, at most `most`. UsageError where it can't be read or is larger."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if len(content) > most:
        raise UsageError(f"{path}: larger than {most} bytes", hint="divide it and `include` the parts")
    return content


def parse_file(path: Path, content: bytes, *, variables: Variables) -> ProjectFile:
    """Read a project file. Raise UsageError naming file and line."""
    root = load(_text(path, content), name=str(path))
    found = root.only(_TOP_LEVEL, FILE_NAME)
    if "version" not in found:
        raise root.error(f"{FILE_NAME} has no 'version'", hint=EXAMPLE["version"])
    if found["version"].integer("version") != 1:
        raise found["version"].error(f"version {found['version'].value!r} of this format is not known", hint="write version: 1")
    if "images" not in found and "include" not in found:
        raise root.error(f"{FILE_NAME} has no 'images' and no 'include'", hint=EXAMPLE["images"])
    if "key-epoch" in found and "project" not in found:
        raise found["key-epoch"].error("key-epoch stands in the file that has `project`")
    reader = _FileReader(folder=path.parent, variables=variables)
    return ProjectFile(
        path=path,
        project=_checked_name(found["project"], found["project"].text("project"), "project") if "project" in found else None,
        key_epoch=_epoch(found["key-epoch"]) if "key-epoch" in found else None,
        include=_include(found["include"]) if "include" in found else (),
        defaults=reader.options(found["defaults"], "defaults") if "defaults" in found else Layer(),
        templates=reader.named(found["templates"], "templates") if "templates" in found else {},
        images=reader.named(found["images"], "images") if "images" in found else {},
    )


def is_root(path: Path) -> bool:
    """Whether the file has `project`. Nothing else of it is checked but that it is YAML."""
    return "project" in load(_text(path, read_file(path)), name=str(path)).mapping(FILE_NAME)


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8 text") from None


def _epoch(node: Node) -> int:
    value = node.integer("key-epoch")
    if not 0 <= value <= MAX_EPOCH:
        raise node.error(f"key-epoch must be 0 to {MAX_EPOCH}, not {value}")
    return value


def _checked_name(node: Node, value: str, what: str) -> str:
    if not _NAME.fullmatch(value):
        raise node.error(f"{what} {value[:60]!r} is not 1 to 128 of A-Z a-z 0-9 _ . -, with a letter or digit at both ends")
    return value


def _include(node: Node) -> tuple[Node, ...]:
    patterns = (node,) if isinstance(node.value, str) else node.sequence("include")
    for pattern in patterns:
        pattern.text("include")
    return patterns


class _FileReader(Struct, frozen=True, kw_only=True):
    folder: Path
    variables: Variables

    def options(self, node: Node, what: str) -> Layer:
        return read_options(node, what, folder=self.folder, variables=self.variables)

    def named(self, node: Node, what: str) -> dict[str, Extending]:
        found = node.mapping(what)
        if not found and what == "images":
            raise node.error("images is empty", hint=EXAMPLE["images"])
        if len(found) > MAX_TEMPLATES and what == "templates":
            raise node.error(f"more than {MAX_TEMPLATES} templates")
        return {name: self._extending(item, name, what) for name, item in found.items()}

    def _extending(self, node: Node, name: str, what: str) -> Extending:
        _checked_name(node, name, f"the {what.removesuffix('s')}'s name")
        said = node.mapping(f"{what}.{name}").get(_EXTENDS)
        layer = read_options(node, f"{what}.{name}", folder=self.folder, variables=self.variables, but=frozenset({_EXTENDS}))
        return Extending(node=node, layer=layer, extends=said.text(f"{what}.{name}.{_EXTENDS}") if said else None)


def resolve(extending: Extending, templates: Mapping[str, Extending]) -> tuple[Layer, ...]:
    """Return what is said, from the furthest template to this mapping itself. UsageError for an unknown one or a circle."""
    layers = [extending.layer]
    chain: list[str] = []
    while extending.extends is not None:
        name = extending.extends
        if name in chain:
            raise extending.node.error(f"templates extend each other in a circle: {' -> '.join([*chain, name])}")
        if name not in templates:
            raise extending.node.error(f"there is no template {name[:60]!r}", hint=suggestion(name, templates))
        chain.append(name)
        if len(chain) > MAX_EXTENDS:
            raise extending.node.error(f"templates extend each other more than {MAX_EXTENDS} deep")
        extending = templates[name]
        layers.append(extending.layer)
    return tuple(reversed(layers))
