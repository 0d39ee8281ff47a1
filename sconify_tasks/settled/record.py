"""What is noted of one image, and of a project."""

from __future__ import annotations

from msgspec import Struct, field

from sconify_tasks.settled.watch import Watch


class SettledImage(Struct, frozen=True, kw_only=True):
    """One image that had nothing left to do at `noted` (ns since 1970).

    `options` is a keyed digest: options hold secrets. `watch` are its own files, `shared` names groups that other images may
    watch too (`Memory.groups`), each with its digest as this image saw it. `engine` maps names to Ids; `cas` is the hash of its
    session there, or empty; `tags` are OCI layouts' index.json, the tag, and a digest of what the index says of it.
    """

    name: str
    options: str
    session: str
    to: str
    warnings: tuple[str, ...]
    demands_production: bool
    noted: int
    watch: Watch
    shared: dict[str, str]
    engine: dict[str, str]
    tags: tuple[tuple[str, str, str], ...]
    cas: str


class Origin(Struct, frozen=True, kw_only=True):
    """Where the images' options came from: project files, places that had none, and variables that were read.

    `globs` are a folder, a pattern and a digest of what it fitted. `variables` is a keyed digest of their values. `names` are
    all images in the files' order; `chosen` those that a run without names builds; `upstream` what images are made from.
    """

    watch: Watch
    globs: tuple[tuple[str, str, str], ...] = ()
    variable_names: tuple[str, ...] = ()
    variables: str = ""
    names: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    upstream: dict[str, tuple[str, ...]] = field(default_factory=dict)
