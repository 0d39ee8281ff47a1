"""A user's policy template: YAML in which `$NAME` or `${NAME}` stands for what the build knows.

A variable that is a whole value becomes the value, be it text, a list or a mapping; inside longer text it becomes text.
Values are put in after the YAML was read, so nothing that comes from an image can change the template's structure.
`$$` is a dollar sign, and `$$SCONE::…$$` stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sconify_tasks.policy.model import Service
from sconify_tasks.policy.parse import parse_session
from sconify_tasks.policy.render import SessionParameters, render
from sconify_tasks.policy.yaml_text import Plain, Quoted, dump
from sconify_tasks.yaml_nodes import Node, load, suggestion

VARIABLES = {
    "SESSION": "NAMESPACE/SESSION, the session's name",
    "NAMESPACE": "the namespace",
    "SERVICE": "the service's name",
    "IMAGE": "the name of the service's entry under images",
    "MRENCLAVE": "the measurement, 64 hex digits",
    "MRSIGNER": "the signer that is attested, 64 hex digits; only with --attest-signer",
    "COMMAND": "the command, with shell-like quoting",
    "ENVIRONMENT": "a mapping: every variable of the service",
    "PWD": "the working directory",
    "FSPF_KEY": "the file system key, 64 hex digits; only when something is protected",
    "FSPF_TAG": "the file system tag, 32 hex digits; only when something is protected",
    "FSPF_PATH": "where the manifest lies; only when something is protected",
    "SECURITY": "a mapping: the security section that the --allow-… options ask for",
}
_VARIABLE = re.compile(r"\$\$SCONE::.*?\$\$|\$\$|\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.DOTALL)


def render_template(template: str, parameters: SessionParameters, *, name: str) -> str:
    """Fill the template in; `name` is its file's. Raise UsageError for an unknown variable (name and line) or a bad session.

    What the session asks for and is not built yet is for `check_supported` to say, as with any other session.
    """
    text = dump(_mapping(load(template, name=name), _known(parameters)))
    parse_session(text, name=f"the session from {name}")
    return text


def _known(parameters: SessionParameters) -> dict[str, Any]:
    session = parameters.session()
    service = session.services[0]
    security = load(render(session), name="session").mapping("a session").get("security")
    found: dict[str, Any] = {
        "SESSION": session.name,
        "NAMESPACE": session.name.namespace,
        "SERVICE": service.name,
        "IMAGE": service.image_name,
        "MRENCLAVE": service.mrenclaves[0] if service.mrenclaves else None,
        "MRSIGNER": _signer_of(service),
        "COMMAND": Quoted(service.command) if isinstance(service.command, str) else None,
        "ENVIRONMENT": dict(service.environment),
        "PWD": service.pwd,
        "FSPF_KEY": service.fspf_key or None,
        "FSPF_TAG": service.fspf_tag or None,
        "FSPF_PATH": service.fspf_path or None,
        "SECURITY": security.data() if security else {},
    }
    return {key: value for key, value in found.items() if value is not None}


def _signer_of(service: Service) -> str | None:
    return next((variant.signer.mrsigner for variant in service.attestation if variant.signer), None)


def _mapping(node: Node, known: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(item, known) for key, item in node.mapping("a session").items()}


def _value(node: Node, known: Mapping[str, Any]) -> Any:
    if isinstance(node.value, tuple):
        return [_value(item, known) for item in node.value]
    if isinstance(node.value, Mapping):
        return _mapping(node, known)
    if node.is_null:
        return None
    whole = _VARIABLE.fullmatch(node.value)
    if whole and (key := whole[1] or whole[2]):
        return _look_up(node, key, known)
    text = _VARIABLE.sub(lambda found: _inside(node, found, known), node.value)
    return Plain(text) if node.plain and text == node.value and "\n" not in text else text


def _inside(node: Node, found: re.Match[str], known: Mapping[str, Any]) -> str:
    key = found[1] or found[2]
    if not key:
        return "$" if found[0] == "$$" else found[0]
    value = _look_up(node, key, known)
    if not isinstance(value, str):
        raise node.error(f"${key} is a mapping and can't stand inside longer text")
    return str(value)


def _look_up(node: Node, key: str, known: Mapping[str, Any]) -> Any:
    if key in known:
        return known[key]
    if key in VARIABLES:
        raise node.error(f"the variable ${key} has no value in this build", hint=VARIABLES[key])
    raise node.error(f"there is no variable ${key}", hint=suggestion(key, VARIABLES) or "write $$ for a dollar sign")
