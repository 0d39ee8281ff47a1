"""`sconify.yaml`: the images of a repository, their options spelled like those of the command line.

A project file is a stranger's text: size and nesting are bounded, every key and value is checked against the option
table, and errors name file and line. Names of files are seen from the project file's folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sconify_tasks.errors import UsageError
from sconify_tasks.option_table import BY_NAME, Option
from sconify_tasks.option_types import Value
from sconify_tasks.options import Options
from sconify_tasks.schema import MAX_EPOCH, NAME_PATTERN
from sconify_tasks.yaml_nodes import Node, load, suggestion

FILE_NAME = "sconify.yaml"
MAX_SIZE = 1 << 20
_TOP_LEVEL = ("version", "project", "key-epoch", "defaults", "images")
_NAME = re.compile(NAME_PATTERN)
_KEYS = tuple(option.name for option in BY_NAME.values() if option.yaml)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project file, read. `images` keeps the file's order; their options are complete but not checked together."""

    name: str
    key_epoch: int
    folder: Path
    images: Mapping[str, Options]


def find_project(start: Path) -> Path:
    """Return the nearest sconify.yaml, from this folder upwards; UsageError where there is none."""
    folder = start.absolute()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    raise UsageError(f"no {FILE_NAME} in {folder} or above it", hint="write one; docs/options.md has an example")


def load_project(path: Path) -> Project:
    """Read a project file. Raise UsageError naming file and line."""
    folder = path.absolute().parent
    root = load(_read(path), name=str(path))
    found = root.only(_TOP_LEVEL, FILE_NAME)
    for key in ("version", "project", "images"):
        if key not in found:
            raise root.error(f"{FILE_NAME} has no {key!r}", hint=_EXAMPLE[key])
    if found["version"].integer("version") != 1:
        raise found["version"].error(f"version {found['version'].value!r} of this format is not known", hint="write version: 1")
    epoch = _epoch(found["key-epoch"]) if "key-epoch" in found else None
    defaults = _options(found["defaults"], "defaults", folder) if "defaults" in found else {}
    if epoch is not None:
        defaults = {"key-epoch": epoch, **defaults}
    images = found["images"].mapping("images")
    if not images:
        raise found["images"].error("images is empty", hint=_EXAMPLE["images"])
    return Project(
        name=_name(found["project"], "project"),
        key_epoch=epoch or 0,
        folder=folder,
        images=MappingProxyType({key: _image(key, node, defaults, folder) for key, node in images.items()}),
    )


_EXAMPLE = {
    "version": "write version: 1",
    "project": "write project: NAME",
    "images": "write images: {NAME: {from: NATIVE_IMAGE, to: TO_IMAGE, binary: BINARY}}",
}


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if len(content) > MAX_SIZE:
        raise UsageError(f"{path}: larger than {MAX_SIZE} bytes")
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


def _name(node: Node, what: str) -> str:
    return _checked_name(node, node.text(what), what)


def _checked_name(node: Node, value: str, what: str) -> str:
    if not _NAME.fullmatch(value):
        raise node.error(f"{what} {value[:60]!r} is not 1 to 128 of A-Z a-z 0-9 _ . -, with a letter or digit at both ends")
    return value


def _image(key: str, node: Node, defaults: Mapping[str, Value], folder: Path) -> Options:
    _checked_name(node, key, "the image's name")
    return Options.of({**defaults, **_options(node, f"images.{key}", folder)})


def _options(node: Node, what: str, folder: Path) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, item in node.mapping(what).items():
        if key not in _KEYS:
            raise _unknown(item, key, what)
        found[key] = _value(item, BY_NAME[key], f"{what}.{key}", folder)
    return found


def _unknown(node: Node, key: str, what: str) -> UsageError:
    if key in BY_NAME:
        return node.error(f"{what}: {key} belongs to the machine, not to a project", hint=f"give it as --{key}")
    hint = suggestion(key.removeprefix("--"), _KEYS) or "docs/options.md lists the options"
    return node.error(f"{what}: there is no option {key[:60]!r}", hint=hint)


def _value(node: Node, option: Option, what: str, folder: Path) -> Value:
    if option.is_flag:
        return node.boolean(what)
    if not option.repeat:
        return _single(node, option, what, folder)
    items = (node,) if isinstance(node.value, str) else node.sequence(what)
    return tuple(str(_single(item, option, what, folder)) for item in items)


def _single(node: Node, option: Option, what: str, folder: Path) -> Value:
    text = node.text(what)
    if node.is_number_or_flag and not option.kind.bare:
        raise node.error(f"{what} must be text, and this is a number or a flag", hint="put it in quotes")
    try:
        value = option.kind.value(text)
    except ValueError as reason:
        shown = "this value" if option.secret else repr(text[:80])
        raise node.error(f"{what}: {shown} is not allowed", hint=f"allowed: {reason}") from None
    return option.kind.relocate(str(value), folder) if option.kind.relocate else value
