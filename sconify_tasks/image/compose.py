"""The config of the image that comes out (ARCHITECTURE section 3): base and native configs in, exact bytes out. Pure.

Of the native image come user, ports, stop signal and volumes. Its labels, history, command and environment stay behind:
they travel in the session, or not at all.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sconify_tasks.errors import UsageError
from sconify_tasks.image.model import ImageConfig, Sha256


def compose_config(
    *,
    base: ImageConfig,
    native: ImageConfig,
    entrypoint: str,
    env: Sequence[str],
    base_diff_ids: Sequence[Sha256],
    layer_diff_ids: Sequence[Sha256],
    epoch: int,
    user: str | None = None,
) -> bytes:
    """Build the OCI image config in RFC 8785 canonical JSON, without a history: engines do not all know the base's.

    `env` are NAME=VALUE entries that go over the base's; `epoch` is the date in seconds; `user` overrides the native one.
    """
    import rfc8785

    created = dt.datetime.fromtimestamp(epoch, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document: dict[str, Any] = {
        "architecture": native.architecture,
        "os": native.os,
        "created": created,
        "config": _container(base, native, entrypoint=entrypoint, env=env, user=native.user if user is None else user),
        "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in (*base_diff_ids, *layer_diff_ids)]},
    }
    return rfc8785.dumps(document)


def refuse_native_as_base(base_diff_ids: Sequence[Sha256], native_diff_ids: Sequence[Sha256], *, same: bool = False) -> None:
    """UsageError for a base that holds the native image in full: it would publish what is to be protected.

    It does if it has all of its layers, or where both are the `same` folder, which as a native image has no layers.
    """
    if same or (native_diff_ids and set(native_diff_ids) <= set(base_diff_ids)):
        msg = "the base image contains the native image itself"
        raise UsageError(msg, hint="name a base that holds the runtime only, as --base=scratch or a distribution's image")


def merge_env(base: Iterable[str], over: Iterable[str]) -> list[str]:
    """Lay NAME=VALUE entries over others: a name keeps its place and gets the last value. Entries without `=` are names."""
    merged: dict[str, str] = {}
    for item in (*base, *over):
        merged[item.partition("=")[0]] = item
    return list(merged.values())


def _container(base: ImageConfig, native: ImageConfig, *, entrypoint: str, env: Sequence[str], user: str) -> dict[str, Any]:
    container: dict[str, Any] = {"Entrypoint": [entrypoint], "Cmd": None, "Env": merge_env(base.env, env)}
    optional: Mapping[str, Any] = {
        "User": user,
        "ExposedPorts": {port: {} for port in native.exposed_ports},
        "Volumes": {volume: {} for volume in native.volumes},
        "StopSignal": native.stop_signal,
        "Labels": dict(base.labels),
    }
    return container | {key: value for key, value in optional.items() if value}
