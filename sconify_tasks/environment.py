"""The one place that reads the process environment: where things lie on this machine, and what the user set for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sconify_cache.limits import size
from sconify_tasks.errors import UsageError

# When nothing sets a date: the same everywhere, so that the same inputs give the same bytes.
DEFAULT_EPOCH = 1_735_689_600  # 2025-01-01T00:00:00Z
_EPOCH = re.compile(r"[0-9]{1,11}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the build takes from its surroundings, as values."""

    home: Path
    state: Path
    cache: Path
    shared_cache: Path | None = None
    cache_size: int | None = None
    memory: int | None = None
    root_key: str | None = field(default=None, repr=False)
    epoch: int = DEFAULT_EPOCH
    signer: str = ""
    signer_passphrase: str | None = field(default=None, repr=False)
    pkcs11_module: str = ""
    docker_host: str = ""
    no_color: bool = False
    documented_resources: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    def with_options(self, options: Mapping[str, Any]) -> Environment:
        """Let `--state`, `--cache` and `--shared-cache` go before the environment's places."""
        state = Path(options["state"]) if options["state"] else self.state
        cache = Path(options["cache"]) if options["cache"] else self.cache
        shared = Path(options["shared-cache"]).absolute() if options["shared-cache"] else self.shared_cache
        return replace(self, state=state.absolute(), cache=cache.absolute(), shared_cache=shared)


def read_environment(variables: Mapping[str, str], *, root: Path = Path("/")) -> Environment:
    """Read the variables documented in the README; UsageError for a date that is no number, or a size that is none."""
    home = Path(variables.get("HOME") or "/root")
    state = variables.get("SCONIFY_STATE") or _below(variables, "XDG_STATE_HOME", home / ".local" / "state")
    cache = variables.get("SCONIFY_CACHE") or _below(variables, "XDG_CACHE_HOME", home / ".cache")
    epoch = variables.get("SOURCE_DATE_EPOCH", "")
    if epoch and not _EPOCH.fullmatch(epoch):
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch} is not a number of seconds", hint="unset it, or give seconds since 1970")
    in_container = (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()
    resources = root / "build-resources"
    return Environment(
        cache_size=_size(variables, "SCONIFY_CACHE_SIZE"),
        memory=_size(variables, "SCONIFY_MEMORY"),
        home=home,
        state=Path(state),
        cache=Path(cache),
        shared_cache=Path(variables["SCONIFY_SHARED_CACHE"]) if variables.get("SCONIFY_SHARED_CACHE") else None,
        root_key=variables.get("SCONIFY_ROOT_KEY") or None,
        epoch=int(epoch) if epoch else DEFAULT_EPOCH,
        signer=variables.get("SCONIFY_SIGNER", ""),
        signer_passphrase=variables.get("SCONIFY_SIGNER_PASSPHRASE"),
        pkcs11_module=variables.get("SCONIFY_PKCS11_MODULE", ""),
        docker_host=variables.get("DOCKER_HOST", ""),
        no_color=bool(variables.get("NO_COLOR")),
        documented_resources=resources if in_container and resources.is_dir() else None,
        variables=dict(variables),
    )


def _size(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    try:
        return size(text) if text else None
    except ValueError:
        raise UsageError(f"{name}={text} is no size", hint="write 500M, 20G or the like") from None


def _below(variables: Mapping[str, str], name: str, default: Path) -> str:
    base = variables.get(name)
    return str((Path(base) if base else default) / "sconify")
