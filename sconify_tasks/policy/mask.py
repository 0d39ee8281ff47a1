"""A session fit to be shown: its shape, without its keys, its commands' arguments, its environment's values and its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sconify_tasks.policy.yaml_text import dump, values
from sconify_tasks.yaml_nodes import load

MASKED = "(masked)"
_MASKED_KEYS = {
    *("fspf_key", "content", "value", "password", "salt", "token", "decryption_key", "application_secret"),
    *("one_time_password_shared_secret", "service_access_token"),
}
_SHOWN_OF_A_SECRET = {"name", "kind", "size", "key_type", "migrate", "endpoint", "valid_for", "alg", "export_public"}


def mask(text: str) -> str:
    """Return the session's text with keys, arguments, environment and secret values masked. UsageError where it is not YAML."""
    top = load(text, name="session").mapping("a session")
    shown = {key: _secrets(values(node)) if key == "secrets" else _walk(values(node)) for key, node in top.items()}
    return dump(shown)


def _walk(value: Any) -> Any:
    if isinstance(value, list):
        return [_walk(item) for item in value]
    if isinstance(value, dict):
        return {key: _one(key, item) for key, item in value.items()}
    return value


def _one(key: str, value: Any) -> Any:
    if key == "environment":
        return dict.fromkeys(value, MASKED) if isinstance(value, Mapping) else MASKED
    if key == "command":
        # Passwords travel in arguments; which program is started is no secret.
        program, space, _ = value.partition(" ") if isinstance(value, str) else ("", " ", "")
        return f"{program} {MASKED}".strip() if space else program
    return MASKED if key in _MASKED_KEYS and value is not None else _walk(value)


def _secrets(value: Any) -> Any:
    """Of a secret only what is known to be harmless is shown; a key that this file does not know is masked."""
    if not isinstance(value, list):
        return MASKED
    return [
        {key: item if key in _SHOWN_OF_A_SECRET else MASKED for key, item in secret.items()}
        if isinstance(secret, dict)
        else MASKED
        for secret in value
    ]
