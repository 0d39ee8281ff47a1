"""Reports and comparisons as text for people. What comes from an image is made fit for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from sconify_tasks.flat import flat
from sconify_tasks.inspection.report import Report
from sconify_tasks.ui import clean

_FILES = 100
"""How many embedded files are listed: there may be thousands, and the JSON has them all."""


def report_lines(report: Report) -> Iterator[str]:
    """One `name: value` a line, aligned; then the enclave's regions, and the first embedded files."""
    document = {key: value for key, value in report.document.items() if key not in {"v", "problems", "enclave"}}
    files = document.get("embedded", {}).get("files", {})
    if files:
        document["embedded"] = {key: value for key, value in document["embedded"].items() if key != "files"}
    document["verified"] = "yes: signature and measurement" if not report.problems else "NO: " + "; ".join(report.problems)
    yield from _aligned(flat(document))
    enclave = report.document["enclave"]
    yield f"enclave of {enclave['size']} bytes:"
    for region in enclave["regions"]:
        yield f"  {region['offset']:#010x} {region['size']:>10} {region['permissions']} {region['what']}"
    if files:
        yield "embedded files:"
        yield from (f"  {clean(path)}" for path in islice(files, _FILES))
        if len(files) > _FILES:
            yield f"  and {len(files) - _FILES} more"


def comparison_lines(found: Mapping[str, Any], names: tuple[str, str]) -> Iterator[str]:
    """First what changed MRENCLAVE, then what else differs."""
    yield from (f"{letter}: {clean(name)}" for letter, name in zip("AB", names, strict=True))
    one, other = found["mrenclave"]
    yield f"MRENCLAVE is the same: {one}" if found["same_mrenclave"] else f"MRENCLAVE differs: {one}, {other}"
    if found["causes"]:
        yield "changed by:"
        yield from _pairs(found["causes"])
    if found["embedded"]:
        yield "embedded files that differ:"
        yield from _pairs(found["embedded"])
    if found["others"]:
        yield "differs too, and does not change MRENCLAVE:"
        yield from _pairs(found["others"])
    if not found["causes"] and not found["others"]:
        yield "nothing differs"


def _pairs(differences: Mapping[str, list[Any]]) -> Iterator[str]:
    yield from (f"  {clean(name)}: {_shown(one)} -> {_shown(other)}" for name, (one, other) in differences.items())


def _aligned(values: Mapping[str, Any]) -> Iterator[str]:
    shown = {clean(name): _shown(value) for name, value in values.items()}
    width = max(map(len, shown)) + 1
    yield from (f"{name + ':':<{width}} {value}" for name, value in shown.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return "-"
    return clean(" ".join(map(str, value)) if isinstance(value, list) else str(value))
