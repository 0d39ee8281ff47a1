"""The graph with --binary-fs: `embedded` in the place of `files`, `binary_fs` in the place of `encrypt` and `manifest`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from sconify_tasks.step import Step

_EMBEDDED = Step(
    name="embedded",
    version=5,
    whole=frozenset({"embedded", "digests"}),
    inputs={
        "native": "external.native",
        "binary": "binary.path",
        "binary_links": "binary.links",
        "scripts": "binary.scripts",
        "config": "inspect.config",
    },
    reads=frozenset(
        {
            *("fs-dir", "fs-file", "plain", "plain-file", "host-path"),
            *("disable-binary-fs-defaults", "disable-copy-service-libraries"),
        }
    ),
    secret=True,
)
_BINARY_FS = Step(
    name="binary_fs",
    version=2,
    whole=frozenset({"embedded", "digests"}),
    inputs={
        "base": "external.base",
        "embedded": "embedded.embedded",
        "digests": "embedded.digests",
        "regions": "embedded.regions",
        "parents": "embedded.parents",
        "file_links": "embedded.links",
        "libraries": "libraries.tree",
        "library_parents": "libraries.parents",
        "library_links": "libraries.links",
        "binary_links": "binary.links",
        "copied": "copy.entries",
        "architecture": "binary.architecture",
        "runtime": "external.runtime",
    },
    secret=True,
)
# What stands in the place of a step. `sign` moves behind `binary_fs`, whose root hash it now takes.
_INSTEAD: Mapping[str, Step] = {"files": _EMBEDDED}
_NAMES: Mapping[str, str] = {"verify": "verify_embedded"}
_LEFT_OUT = frozenset({"encrypt", "manifest", "sign"})
_MORE: Mapping[str, Mapping[str, str]] = {
    "copy": {"embedded": "embedded.embedded"},
    "sign": {"binary_fs": "binary_fs.root"},
    "sconify": {"section": "binary_fs.section"},
    "verify": {
        "embedded": "embedded.embedded",
        "digests": "embedded.digests",
        "root": "binary_fs.root",
        "mrenclave": "sign.mrenclave",
    },
}
# What only encryption needs.
_FEWER: Mapping[str, frozenset[str]] = {"verify": frozenset({"secret", "public", "libraries", "tag", "base", "key_id"})}
_SOURCES: Mapping[str, str] = {
    "encrypt.layer": "binary_fs.layer",
    "encrypt.layer_facts": "binary_fs.layer_facts",
    "manifest.layer": "binary_fs.nothing",
    "manifest.layer_facts": "binary_fs.nothing",
    "manifest.tag": "binary_fs.nothing",
    "verify.protected": "verify_embedded.protected",
}


def with_binary_fs(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return the steps with files embedded rather than encrypted, in topological order."""
    return tuple(_steps(list(steps)))


def _steps(steps: list[Step]) -> Iterator[Step]:
    by_name = {step.name: step for step in steps}
    for step in steps:
        if step.name not in _LEFT_OUT:
            yield _rewired(_INSTEAD.get(step.name, step))
        if step.name == "copy":
            yield _BINARY_FS
            yield _rewired(by_name["sign"])


def _rewired(step: Step) -> Step:
    fewer = _FEWER.get(step.name, frozenset())
    inputs = {name: _source(source) for name, source in step.inputs.items() if name not in fewer}
    return replace(step, name=_NAMES.get(step.name, step.name), inputs={**inputs, **_MORE.get(step.name, {})})


def _source(source: str) -> str:
    step, _, output = source.partition(".")
    return _SOURCES.get(source, f"embedded.{output}" if step == "files" else source)
