"""What changes MRENCLAVE: the measured config, field by field, and the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sconify_cache.store import MissingBlobError
from sconify_tasks.errors import SconifyError
from sconify_tasks.flat import flat

if TYPE_CHECKING:
    from sconify_tasks.build import Build
    from sconify_tasks.explain import Before
    from sconify_tasks.step import Step

_SHOWN_DIGITS = 16


def changed_measurement(build: Build, step: Step, before: Before) -> tuple[str, ...]:
    """`MRENCLAVE: FIELD: OLD -> NEW` for every measured field that differs; digests here are those that the image has.

    Where the binary has yet to be looked at, it is taken to be what it was.
    """
    from sconify_tasks.sgx.measured_config import decode_config

    record = before.records.get("sign")
    if record is None or "config" not in record.outputs:
        return ()
    try:
        old = flat(decode_config(build.world.store.get(record.outputs["config"])).as_json())
        new = {**old, **_expected(build, step)}
    except (MissingBlobError, SconifyError):
        return ()
    lines = [
        f"MRENCLAVE: {name}: {_said(old.get(name))} -> {_said(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    was: Any = record.components["inputs"]
    now: Any = build.known_components(step)["inputs"]
    if was.get("runtime") != now.get("runtime"):
        lines.append("MRENCLAVE: runtime: another build of it")
    return tuple(lines) or ("MRENCLAVE stays: nothing that is measured changed",)


def _expected(build: Build, step: Step) -> dict[str, Any]:
    """The measured fields as far as they are known."""
    from sconify_tasks.sgx.measured_config import MeasuredConfig
    from sconify_tasks.steps.sign import measured

    if step.upstream() <= build.settled.keys():
        return flat(measured(build.context(step)).as_json())
    return {name: build.options[name] for name in MeasuredConfig.__struct_fields__ if name in step.reads}


def _said(value: object) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:_SHOWN_DIGITS]}…" if len(text) == 2 * 32 else text
