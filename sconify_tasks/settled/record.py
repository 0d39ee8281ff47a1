"""What is noted of one image, and of a project."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self

from sconify_tasks.settled.signature import Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledImage:
    """One image that had nothing left to do at `noted` (ns since 1970).

    `options` is a keyed digest: options hold secrets. Paths are absolute. Of `sizes` only the length counts, because their
    inodes are shared with the store, where a link more or less changes the change time. `engine` maps names to Ids, `cas`
    sessions to hashes; `tags` are OCI layouts' index.json, the tag, and a digest of what the index says of it.
    """

    name: str
    options: str
    session: str
    to: str
    sources: tuple[str, ...]
    warnings: tuple[str, ...]
    demands_production: bool
    noted: int
    files: dict[str, Signature]
    sizes: dict[str, int]
    trees: dict[str, str]
    absent: tuple[str, ...]
    engine: dict[str, str]
    tags: tuple[tuple[str, str, str], ...]
    cas: dict[str, str]

    def to_json(self) -> list[Any]:
        """The fields in their order."""
        return [getattr(self, each.name) for each in fields(self)]

    @classmethod
    def of_json(cls, values: list[Any]) -> Self:
        """Take `to_json`'s list. It is authentic: shapes need no second look."""
        return cls(**dict(zip(cls.__slots__, values, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the images' options came from: project files by stat, folders that had none, and variables that were read.

    `globs` are a folder, a pattern and a digest of what it fitted. `variables` is a keyed digest of their values. `names` are
    all images in the files' order; `chosen` those that a run without names builds; `upstream` what images are made from.
    """

    files: dict[str, Signature]
    absent: tuple[str, ...] = ()
    globs: tuple[tuple[str, str, str], ...] = ()
    variable_names: tuple[str, ...] = ()
    variables: str = ""
    names: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    upstream: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> list[Any]:
        """The fields in their order."""
        return [getattr(self, each.name) for each in fields(self)]

    @classmethod
    def of_json(cls, values: list[Any]) -> Self:
        """Take `to_json`'s list."""
        return cls(**dict(zip(cls.__slots__, values, strict=True)))
