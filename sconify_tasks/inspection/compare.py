"""What differs between two sconified binaries, and which of the differences changed MRENCLAVE: found by measuring."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from sconify_tasks.flat import flat
from sconify_tasks.inspection.report import Report
from sconify_tasks.sgx.measured_config import MeasuredBinary, MeasuredConfig
from sconify_tasks.sgx.sgxs import measure

_OF_THE_PLACE = {"v", "source"}
_FOLLOWS = {"mrenclave", "measured", "embedded", "enclave"}
RUNTIME = "runtime"


def compare(one: Report, other: Report) -> dict[str, Any]:
    """Return `mrenclave`, `causes`, `others`: name -> [value of one, value of the other]; `embedded` the same of files."""
    causes = _causes(one, other)
    first, second = flat(one.document), flat(other.document)
    names = [name for name in dict.fromkeys((*first, *second)) if first.get(name) != second.get(name)]
    others = {
        name: [first.get(name), second.get(name)]
        for name in names
        if name not in causes and name.partition(".")[0] not in _OF_THE_PLACE | _FOLLOWS and name != RUNTIME
    }
    return {
        "mrenclave": [one.measured, other.measured],
        "same_mrenclave": one.measured == other.measured,
        "causes": causes,
        "embedded": _embedded(one, other),
        "others": others,
    }


def _embedded(one: Report, other: Report) -> dict[str, list[str | None]]:
    """Embedded files that differ, with their content hashes: what another root hash (`config.binary_fs`) comes from."""
    first, second = (report.document.get("embedded", {}).get("files", {}) for report in (one, other))
    paths = sorted(first.keys() | second.keys())
    return {path: [first.get(path), second.get(path)] for path in paths if first.get(path) != second.get(path)}


def _causes(one: Report, other: Report) -> dict[str, list[Any]]:
    """Every measured value that differs and gives `one` another MRENCLAVE when it is put into it alone."""
    mine, theirs = one.found.config, other.found.config
    first, second = flat({"config": mine.as_json()}), flat({"config": theirs.as_json()})
    differ = [name for name in first if first[name] != second[name]]
    causes = {
        name: [first[name], second[name]]
        for name in differ
        if measure(one.subject.file, _with(mine, theirs, name.removeprefix("config."))) != one.measured
    }
    if measure(other.subject.file, mine) != one.measured:
        causes[RUNTIME] = [one.document["runtime"], other.document["runtime"]]
    return causes


def _with(config: MeasuredConfig, other: MeasuredConfig, name: str) -> MeasuredConfig:
    """`config` with one value of `other`."""
    outer, _, inner = name.partition(".")
    value = getattr(other, outer)
    if inner:
        binary: MeasuredBinary = config.binary
        value = replace(binary, **{inner: getattr(other.binary, inner)})
    return replace(config, **{outer: value})
