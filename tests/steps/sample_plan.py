"""One image's plan with made-up outputs in every step: what keys are made of, and no file, engine or CAS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sconify_cache.actions import ActionCache
from sconify_cache.digest import Digest
from sconify_cache.keys import JSON, facts_digest
from sconify_cache.local import LocalStore
from sconify_tasks.build import Build
from sconify_tasks.environment import Environment
from sconify_tasks.graph import STEPS as ALL
from sconify_tasks.graph_binary_fs import with_binary_fs
from sconify_tasks.image.opened import OpenedSource
from sconify_tasks.keys import Keys
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.option_types import Value
from sconify_tasks.options import Options
from sconify_tasks.step import Outputs, Step
from sconify_tasks.world import World

GOLDEN = Path(__file__).parents[1] / "golden" / "plan_keys.json"
GOLDEN_BINARY_FS = GOLDEN.with_name("plan_keys_binary_fs.json")
BINARY_FS = with_binary_fs(ALL)
NOWHERE = Path("/nonexistent")
SAMPLE: Mapping[str, Value] = {
    "from": "registry.example/app:1",
    "to": "registry.example/app:1-confidential",
    "binary": "/usr/bin/python3",
    "base": "scratch",
    "dir": ("/app", "/tls"),
    "plain": ("/usr/share/zoneinfo",),
    "env": ("TOKEN=secret", "MODE=test"),
    "command": "python3 -B /app/main.py",
    "allow-debug-mode": True,
}
# One allowed value for every option, other than its default and than the sample's.
OTHERS: Mapping[str, Value] = {
    "allow-debug-mode": False,
    "azure-attestation": "https://maa.example",
    "base": "alpine:3.10",
    "binary": "/usr/bin/perl",
    "cas": "cas.example:8081",
    "cas-key": "ab" * 32,
    "command": "perl /app/main.pl",
    "dlopen": 2,
    "fork": 1,
    "from": "registry.example/app:2",
    "enclave-mode": "debug",
    "heap": 2 << 30,
    "isvprodid": 3,
    "isvsvn": 4,
    "key-epoch": 7,
    "las": "las.example:18766",
    "log": "debug",
    "mprotect": 0,
    "platform": "linux/arm64",
    "signing-date": 20260102,
    "stack": 2 << 20,
    "threads": 16,
    "to": "registry.example/app:2-confidential",
    "toolchain": "another",
}


def other_value(name: str) -> Value:
    """A value that the sample plan does not have."""
    if name in OTHERS:
        return OTHERS[name]
    option = BY_NAME[name]
    if option.is_flag:
        return not SAMPLE.get(name, option.initial)
    return ("/other",) if option.repeat else "other"


def sources(steps: Sequence[Step] = ALL) -> set[str]:
    """Everything that any step takes: `STEP.OUTPUT` and `external.NAME`."""
    return {source for step in steps for source in step.inputs.values()}


@dataclass(slots=True, kw_only=True)
class Plan:
    """The sample plan, with some of its outputs, externals or options replaced."""

    options: Mapping[str, Value] = field(default_factory=dict)
    values: Mapping[str, JSON] = field(default_factory=dict)
    root: bytes = bytes(32)
    project: str = "sample"
    steps: tuple[Step, ...] = ALL

    def build(self) -> Build:
        environment = Environment(home=NOWHERE, state=NOWHERE, cache=NOWHERE)
        keys = Keys(root=self.root, project=self.project)
        world = World(
            environment=environment,
            keys=keys,
            store=LocalStore(NOWHERE),
            actions=ActionCache(NOWHERE, mac_key=keys.record_key()),
        )
        return Build(
            name="sample",
            options=Options.of({**SAMPLE, **self.options}),
            world=world,
            steps=self.steps,
            externals={name: lambda name=name: self.value(f"external.{name}") for name in names_of("external", self.steps)},
            native=OpenedSource(untouched),
            base=OpenedSource(untouched),
            fspf_key=untouched,
            signer=untouched,
            settled={step.name: self.outputs(step.name) for step in self.steps},
        )

    def value(self, source: str) -> JSON:
        return self.values.get(source, facts_digest(f"sample {source}"))

    def outputs(self, step: str) -> Outputs:
        return Outputs(facts={name: self.value(f"{step}.{name}") for name in names_of(step, self.steps)})

    def components(self) -> dict[str, dict[str, Any]]:
        build = self.build()
        return {step.name: build.action(step).components for step in self.steps}

    def keys(self) -> dict[str, Digest]:
        build = self.build()
        return {step.name: build.action(step).key for step in self.steps}


def names_of(step: str, steps: Sequence[Step] = ALL) -> set[str]:
    return {source.partition(".")[2] for source in sources(steps) if source.partition(".")[0] == step}


def untouched() -> Any:
    message = "a key is made of what is known before a step runs: nothing is opened for it"
    raise AssertionError(message)


def step_named(name: str) -> Step:
    (found,) = (step for step in ALL if step.name == name)
    return found


def golden_text(steps: tuple[Step, ...] = ALL) -> str:
    about = "Golden keys of a sample plan. A change here voids the caches of that step: it is a decision, not an accident."
    plan = Plan(steps=steps)
    document = {"about": about, "keys": plan.keys(), "components": plan.components()}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden_text())
    GOLDEN_BINARY_FS.write_text(golden_text(BINARY_FS))
