"""Why a step runs, or does not: down to the file, the option, the layer, and for MRENCLAVE to the measured field.

Nothing here runs a step or writes. What is said is for the local user: names of protected files are among it, while values
of secret options, of the environment and content digests are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sconify_cache.digest import Digest
from sconify_cache.record import Record
from sconify_cache.store import MissingBlobError
from sconify_tasks.errors import SconifyError
from sconify_tasks.explain_contents import changed_blob, changed_fact
from sconify_tasks.explain_measured import changed_measurement
from sconify_tasks.step import IMAGES
from sconify_tasks.surroundings import NAME, changed_external, option_change

if TYPE_CHECKING:
    from sconify_tasks.build import Build
    from sconify_tasks.step import Step

_MRENCLAVE = "sign.mrenclave"
_SHOWN_DIGITS = 16
_BYTES = ("layer", "layer_facts", "original", "session", "command")
"""Outputs that say nothing to a reader, or must not be shown."""
_EFFECTS = {
    "deliver": "the image is no longer where --to says, or another one is",
    "resources": "a file of the build resources is gone or was changed",
    "upload": "the CAS does not serve this version of the session (any more)",
}


class Explanation(Struct, frozen=True, kw_only=True):
    """One step. `state` is `cached`, `run`, or `waits`: it runs unless what it waits for gives what it gave before.

    What a `shared` step yields is not on this machine: the next build takes it over from the shared cache. A step waits for
    the steps in `waits`, and for the `images` that are delivered anew before it looks at them. `details` are what a
    cached step told those who asked for them.
    """

    image: str
    step: str
    state: str
    reasons: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


class Before(Struct, frozen=True, kw_only=True):
    """The last records of an image, taken before steps of this run put theirs in their place."""

    records: Mapping[str, Record]

    @classmethod
    def of(cls, build: Build) -> Before:
        """Look up the last record of every step, and of what the image was made with."""
        names = [step.name for step in build.steps] + [NAME]
        found = {name: build.world.actions.latest(build.scope, name) for name in names}
        return cls(records={name: record for name, record in found.items() if record is not None})

    @property
    def surroundings(self) -> Mapping[str, Any]:
        """What the image was made with; empty where nobody knows."""
        record = self.records.get(NAME)
        return record.facts if record is not None else {}

    def value(self, source: str) -> Any:
        """What `STEP.OUTPUT` was; None where nobody knows."""
        step, _, output = source.partition(".")
        record = self.records.get(step)
        if record is None:
            return None
        return record.outputs[output] if output in record.outputs else record.facts.get(output)


def explain(build: Build, *, after: tuple[str, ...] = ()) -> tuple[Explanation, ...]:
    """Every step of an image as the next build would find it. Settles what the caches have.

    `after` names the images that this one is made from and that are delivered anew first: they are not looked at.
    """
    before = Before.of(build)
    unknown = IMAGES if after else frozenset[str]()
    found: list[Explanation] = []
    for step in build.steps:
        state, reasons, details = "cached", tuple[str, ...](), tuple[str, ...]()
        waits = tuple(sorted(name for name in step.upstream() if name not in build.settled))
        images = () if unknown.isdisjoint(step.inputs.values()) else after
        if waits or images:
            reasons = _known_reasons(build, step, before, unknown=unknown)
            state = "run" if reasons else "waits"
        elif not build.settle(step):
            reasons = reasons_for(build, step, before, look=True)
            state = "shared" if build.is_offered(step) else "run"
        else:
            details = build.settled[step.name].details(build.world.store)
        found.append(
            Explanation(
                image=build.name, step=step.name, state=state, reasons=reasons, waits=waits, images=images, details=details
            )
        )
    return tuple(found)


def reasons_for(build: Build, step: Step, before: Before, *, look: bool = False) -> tuple[str, ...]:
    """Why the step runs. Its inputs must be settled. `look` searches a changed native image for the files that differ."""
    lines = [*_known_reasons(build, step, before, look=look), *_gone(build, step)]
    return tuple(dict.fromkeys(lines)) or ("what it made is gone or was changed",)


def _known_reasons(
    build: Build, step: Step, before: Before, *, look: bool = True, unknown: Collection[str] = ()
) -> tuple[str, ...]:
    """Why the step runs for certain, by its options and by those of its inputs that are settled."""
    latest = before.records.get(step.name)
    if latest is None:
        return ("never run for this image",)
    new = build.known_components(step, unknown=unknown)
    lines = _changed_components(build, step, before, latest.components, new)
    if look and step.name == "files" and _differs(latest, new, "native"):
        from sconify_tasks.explain_native import changed_native

        lines += changed_native(build, before)
    return tuple(dict.fromkeys(lines))


def _changed_components(build: Build, step: Step, before: Before, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    if old["version"] != new["version"]:
        lines.append(f"this program makes it differently: version {old['version']} -> {new['version']} of the step")
    for name, value in new["options"].items():
        was = old["options"].get(name)
        if _list(was) != _list(value):
            lines.append(option_change(name, was, value))
    lines += [f"--{name} no longer matters to it" for name in old["options"] if name not in new["options"]]
    for name, identity in new["inputs"].items():
        if old["inputs"].get(name) != identity:
            lines += _changed_input(build, step, name, before, old["inputs"].get(name))
    lines += [f"it no longer takes {name}" for name in old["inputs"] if name not in step.inputs]
    if step.name == "sign" and lines:
        lines += changed_measurement(build, step, before)
    return lines


def _changed_input(build: Build, step: Step, name: str, before: Before, old_id: object) -> tuple[str, ...]:
    source = step.inputs[name]
    upstream, _, output = source.partition(".")
    if upstream == "external":
        return changed_external(build, output, before.surroundings)
    old, new = before.value(source), build.value(source)
    # The upstream step's last record may be of another build than this step's.
    if old_id is None or build.value_id(source, old) != old_id:
        return (f"{source} changed",)
    if source == _MRENCLAVE:
        return (f"MRENCLAVE: {str(old)[:_SHOWN_DIGITS]}… -> {str(new)[:_SHOWN_DIGITS]}…",)
    if output in _BYTES:
        return (f"{upstream}.{output.removesuffix('_facts')} changed",)
    return _changed_value(build, source, old, new)


def _changed_value(build: Build, source: str, old: Any, new: Any) -> tuple[str, ...]:
    if not (isinstance(old, Digest) and isinstance(new, Digest)):
        return changed_fact(source, old, new)
    store = build.world.store
    try:
        return changed_blob(source, store.get(old), store.get(new))
    except (MissingBlobError, SconifyError):
        return (f"{source} changed",)


def _gone(build: Build, step: Step) -> list[str]:
    """Why a step runs although it ran before with these very inputs."""
    record = build.world.actions.lookup(build.action(step).key)
    if record is None:
        return []
    store = build.world.store
    lines = [f"its output {name} is gone from the cache" for name, digest in record.outputs.items() if not store.has(digest)]
    if step.effect and not lines and not build.record_holds(step, record):
        lines.append(_EFFECTS[step.name])
    return lines


def _differs(latest: Record, components: Mapping[str, Any], name: str) -> bool:
    inputs: Any = latest.components["inputs"]
    return name in components["inputs"] and bool(inputs.get(name) != components["inputs"][name])


def _list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
