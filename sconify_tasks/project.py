"""A project: the `sconify.yaml` that names it, the ones that it includes, and the options of every image in them.

What an image is given, from weak to strong: the option table's default, the root's `defaults`, those of each file on the
way down to the image's own, the template that it `extends`, the image itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from blake3 import blake3
from msgspec import Struct

from sconify_cache.digest import Digest
from sconify_tasks.errors import UsageError
from sconify_tasks.includes import Glob, find
from sconify_tasks.interpolation import Variables
from sconify_tasks.option_types import Value
from sconify_tasks.options import Options
from sconify_tasks.project_file import (
    EXAMPLE,
    FILE_NAME,
    MAX_SIZE,
    Extending,
    ProjectFile,
    is_root,
    parse_file,
    read_file,
    resolve,
)
from sconify_tasks.yaml_nodes import Node

MAX_FILES = 10_000
MAX_TOTAL = 32 << 20
MAX_IMAGES = 20_000
MAX_ITEMS = 1_000_000  # of all lists of all images, inherited ones counted for each
MAX_INCLUDES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project, read. Images are in the order of the files; their options are complete but not checked together.

    `origins` names the files of each image: its own first, then the one that includes it, up to the root.
    The parse depended on `sources` (digests of all files), `globs` (what patterns fitted) and `variables` (what was
    asked of the environment, None where it is not set; they may be secrets), and on nothing else.
    """

    name: str
    key_epoch: int
    folder: Path
    images: Mapping[str, Options]
    origins: Mapping[str, tuple[Path, ...]]
    sources: Mapping[Path, Digest]
    globs: tuple[Glob, ...] = ()
    variables: Mapping[str, str | None] = field(default_factory=dict, repr=False)

    def images_of(self, path: Path) -> tuple[str, ...]:
        """Names of the images in this file and in what it includes; all of them where it is the root.

        UsageError where it is no part of the project.
        """
        real = os.path.realpath(path)
        same = {file for file in self.sources if os.path.realpath(file) == real}
        if not same:
            raise UsageError(
                f"{path} has no `project`, and {self.folder / FILE_NAME} does not include it",
                hint="name it under `include` there, or give it a `project` of its own",
            )
        return tuple(name for name, files in self.origins.items() if not same.isdisjoint(files))


class Found(Struct, frozen=True, kw_only=True):
    """Where a user stands: the nearest project file, and the root that it is a part of, if it isn't one itself."""

    root: Path
    nearest: Path


def find_project(start: Path) -> Found:
    """Find the nearest sconify.yaml from this folder upwards, and its project; UsageError where there is none."""
    folder = start.absolute()
    files = [each / FILE_NAME for each in (folder, *folder.parents) if (each / FILE_NAME).is_file()]
    if not files:
        raise UsageError(f"no {FILE_NAME} in {folder} or above it", hint="write one; docs/options.md has an example")
    return _rooted(files)


def project_of(path: Path) -> Found:
    """Find the project of a file that the user named."""
    above = [each / FILE_NAME for each in path.absolute().parent.parents if (each / FILE_NAME).is_file()]
    return _rooted([path.absolute(), *above])


def _rooted(files: list[Path]) -> Found:
    # The last one is taken for the root unread: what it lacks is said when it is loaded.
    return Found(root=next((file for file in files[:-1] if is_root(file)), files[-1]), nearest=files[0])


def load_project(path: Path, *, variables: Mapping[str, str] = MappingProxyType({})) -> Project:
    """Read a project from its root file. `variables` is the environment. Raise UsageError naming file and line."""
    loader = _Loader(root=path.absolute(), variables=Variables(given=variables))
    return loader.project()


class _Loader:
    """Reads one project; lives for one."""

    def __init__(self, *, root: Path, variables: Variables) -> None:
        self._root = root
        self._real_root = os.path.realpath(root.parent)
        self._variables = variables
        self._images: dict[str, Options] = {}
        self._nodes: dict[str, Node] = {}
        self._origins: dict[str, tuple[Path, ...]] = {}
        self._sources: dict[Path, Digest] = {}
        self._real = {os.path.realpath(root): root}
        self._globs: list[Glob] = []
        self._total = 0
        self._items = 0

    def project(self) -> Project:
        root = self._parse(self._root)
        if root.project is None:
            raise UsageError(f"{self._root}:1: {FILE_NAME} has no 'project', nor has one above it", hint=EXAMPLE["project"])
        epoch: dict[str, Value] = {} if root.key_epoch is None else {"key-epoch": root.key_epoch}
        self._take(root, inherited=epoch, templates={}, above=())
        return Project(
            name=root.project,
            key_epoch=root.key_epoch or 0,
            folder=self._root.parent,
            images=MappingProxyType(self._images),
            origins=MappingProxyType(self._origins),
            sources=MappingProxyType(self._sources),
            globs=tuple(self._globs),
            variables=MappingProxyType(self._variables.read),
        )

    def _parse(self, path: Path) -> ProjectFile:
        content = read_file(path, most=min(MAX_SIZE, MAX_TOTAL - self._total))
        self._total += len(content)
        self._sources[path] = Digest(blake3(content).hexdigest())
        return parse_file(path, content, variables=self._variables)

    def _take(
        self,
        file: ProjectFile,
        *,
        inherited: Mapping[str, Value],
        templates: Mapping[str, Extending],
        above: tuple[Path, ...],
    ) -> None:
        """Take the images of a file, then those of the files that it includes."""
        defaults = file.defaults.over(inherited)
        for name in file.templates.keys() & templates.keys():
            where = f"{templates[name].node.name}:{templates[name].node.line}"
            raise file.templates[name].node.error(f"the template {name} is there already: {where}")
        templates = {**templates, **file.templates}
        for template in file.templates.values():
            resolve(template, templates)
        origin = (file.path, *above)
        for name, image in file.images.items():
            self._add(name, image, defaults, templates, origin)
        for pattern in file.include:
            for path in self._included(pattern, file.path, above):
                part = self._parse(path)
                if part.project is not None:
                    raise pattern.error(f"{path} has a `project` of its own", hint="leave it out here, or remove its `project`")
                self._take(part, inherited=defaults, templates=templates, above=origin)

    def _add(
        self,
        name: str,
        image: Extending,
        defaults: Mapping[str, Value],
        templates: Mapping[str, Extending],
        origin: tuple[Path, ...],
    ) -> None:
        if name in self._images:
            first = self._nodes[name]
            raise image.node.error(f"there is an image {name} already: {first.name}:{first.line}", hint="rename one of them")
        if len(self._images) >= MAX_IMAGES:
            raise image.node.error(f"more than {MAX_IMAGES} images")
        values = dict(defaults)
        for layer in resolve(image, templates):
            values = layer.over(values)
        self._items += sum(len(value) for value in values.values() if isinstance(value, tuple))
        if self._items > MAX_ITEMS:
            raise image.node.error(f"more than {MAX_ITEMS} items in the lists of all images")
        self._images[name] = Options.of(values)
        self._nodes[name] = Node(name=image.node.name, line=image.node.line, value="")
        self._origins[name] = origin

    def _included(self, pattern: Node, path: Path, above: tuple[Path, ...]) -> tuple[Path, ...]:
        """The files that a pattern fits, without the one that says it; each one is new to the project."""
        text = pattern.text("include")
        try:
            found = find(path.parent, text)
        except ValueError as allowed:
            raise pattern.error(f"include: {text[:80]!r} is not allowed", hint=f"allowed: {allowed}") from None
        except UsageError as error:
            raise pattern.error(f"include: {error.message}", hint=error.hint) from None
        self._globs.append(Glob(folder=path.parent, pattern=text, found=found))
        found = tuple(each for each in found if each != path)
        if not found:
            raise pattern.error(f"include: {text[:80]!r} fits no file below {path.parent}")
        if len(above) + 1 > MAX_INCLUDES:
            raise pattern.error(f"files include files more than {MAX_INCLUDES} deep")
        if len(self._sources) + len(found) > MAX_FILES:
            raise pattern.error(f"include: more than {MAX_FILES} files")
        for each in found:
            self._check(each, pattern, (path, *above))
        return found

    def _check(self, path: Path, pattern: Node, chain: tuple[Path, ...]) -> None:
        if any(0xD800 <= ord(char) <= 0xDFFF for char in str(path)):  # noqa: PLR2004 - bytes that are not UTF-8
            raise pattern.error(f"include: {str(path)!r} is not UTF-8 text", hint="rename it")
        real = os.path.realpath(path)
        if not real.startswith(self._real_root.rstrip("/") + "/"):
            raise pattern.error(f"include: {path} is a link to {real}, outside the project's folder {self._root.parent}")
        before = self._real.setdefault(real, path)
        if before is path:
            return
        if before in chain:
            circle = " -> ".join(str(each) for each in reversed(chain[: chain.index(before) + 1]))
            raise pattern.error(f"include: files include each other in a circle: {circle} -> {path}")
        also = "" if before == path else f", as {before}"
        raise pattern.error(f"include: {path} is a part of the project already{also}", hint="let one pattern fit it")
