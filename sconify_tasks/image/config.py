"""Image configs: from the OCI image config's JSON (image-spec config.md), or from what an engine's inspect returns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sconify_tasks.errors import UsageError
from sconify_tasks.image.model import ImageConfig, Sha256

_HINT = "the image's config is damaged: build or pull the image again"


def parse_config(data: bytes) -> ImageConfig:
    """Parse and check the JSON of an image config. UsageError for anything that is not one."""
    raw = json_object(data, what="image config")
    return config_of(raw, raw.get("config") or {})


def config_of(raw: Mapping[str, Any], config: object) -> ImageConfig:
    """Take an ImageConfig from a document with `architecture` and `os`, and its container config (`config`, `Config`)."""
    if not isinstance(config, dict):
        raise _bad("config", config)
    return ImageConfig(
        architecture=_text(raw.get("architecture") or raw.get("Architecture"), "architecture"),
        os=_text(raw.get("os") or raw.get("Os"), "os"),
        entrypoint=_texts(config.get("Entrypoint"), "Entrypoint"),
        cmd=_texts(config.get("Cmd"), "Cmd"),
        env=_texts(config.get("Env"), "Env"),
        workdir=_text(config.get("WorkingDir"), "WorkingDir"),
        user=_text(config.get("User"), "User"),
        exposed_ports=_keys(config.get("ExposedPorts"), "ExposedPorts"),
        volumes=_keys(config.get("Volumes"), "Volumes"),
        stop_signal=_text(config.get("StopSignal"), "StopSignal"),
        labels=_labels(config.get("Labels")),
        healthcheck=bool(config.get("Healthcheck")),
        raw=raw,
    )


def parse_diff_ids(rootfs: object) -> tuple[Sha256, ...]:
    """Take the diff ids from a list of strings. UsageError for anything else."""
    try:
        return tuple(Sha256(item) for item in _texts(rootfs, "rootfs.diff_ids"))
    except ValueError as error:
        raise UsageError(str(error), hint=_HINT) from error


def identity_of(config: ImageConfig, diff_ids: tuple[Sha256, ...]) -> str:
    """Hash layers and config (SHA-256 hex) in a normal form: null, absent and empty are one, as engines differ in them."""
    import rfc8785

    normal: dict[str, Any] = {
        "layers": [str(digest) for digest in diff_ids],
        "platform": [config.os, config.architecture],
        "config": {
            "entrypoint": list(config.entrypoint),
            "cmd": list(config.cmd),
            "env": list(config.env),
            "workdir": config.workdir,
            "user": config.user,
            "ports": list(config.exposed_ports),
            "volumes": list(config.volumes),
            "stop_signal": config.stop_signal,
            "labels": dict(config.labels),
            "healthcheck": config.healthcheck,
        },
    }
    return hashlib.sha256(rfc8785.dumps(normal)).hexdigest()


def json_object(data: bytes, *, what: str) -> dict[str, Any]:
    """Parse a JSON object that came from outside."""
    try:
        value = json.loads(data)
        data.decode("utf-8")
    except (ValueError, RecursionError) as error:
        msg = f"damaged {what}: {error}"
        raise UsageError(msg, hint=_HINT) from error
    if not isinstance(value, dict):
        msg = f"damaged {what}: not a JSON object"
        raise UsageError(msg, hint=_HINT)
    return value


def _text(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value or not _encodable(value):
        raise _bad(name, value)
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(_text(item, name) for item in value)
    raise _bad(name, value)


def _keys(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, dict):
        return tuple(sorted(_text(key, name) for key in value))
    raise _bad(name, value)


def _labels(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return {_text(key, "Labels"): _text(item, "Labels") for key, item in value.items()}
    raise _bad("Labels", value)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _bad(name: str, value: object) -> UsageError:
    return UsageError(f"{name} of the image config is {str(value)[:60]!r}", hint=_HINT)
