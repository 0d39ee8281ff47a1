"""What an image was last made with, kept to explain the next build: its options, and its images' layers and config.

Action keys hold an image as one identity; this is what that identity is made of. It is a secret record, which stays on
this machine, and holds contents and values of secrets as keyed ids only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from sconify_cache.keys import JSON, Action, secret_id
from sconify_cache.record import Record
from sconify_tasks.explain_contents import change, changed_keys
from sconify_tasks.option_table import BY_NAME, OPTIONS, Option
from sconify_tasks.options import Options, is_secret

if TYPE_CHECKING:
    from sconify_tasks.build import Build
    from sconify_tasks.image.source import SourceImage

NAME = "surroundings"
# The options that an external input comes from; those that steps read are in the steps' own keys.
OPTIONS_OF: Mapping[str, tuple[str, ...]] = {
    "native": ("from", "platform"),
    "base": ("base", "platform"),
    "fspf_key_id": ("to", "key-epoch"),
    "session": ("namespace", "name", "to"),
    "embedded_pin": ("cas",),
    "cas_roots": ("cas", "cas-root"),
    "template": ("template",),
    "signer": ("scone-signer",),
    "resources": (),
    "runtime": (),
    "epoch": (),
}
_SAID = ("session", "resources", "epoch")
"""Externals whose values may be shown."""


def remember(build: Build) -> None:
    """Keep what the image was made with, once all of its steps are settled. Writes only where it is news."""
    actions, before = build.world.actions, build.world.actions.latest(build.scope, NAME)
    facts = describe(build, before.facts if before is not None else {})
    action = Action(step=NAME, version=1, options=facts)
    record = Record(key=action.key, step=NAME, facts=facts, secret=True)
    if before is None or before.key != record.key:
        actions.record(record, scope=build.scope)


def describe(build: Build, before: Mapping[str, Any]) -> dict[str, JSON]:
    """What the image is made with now. An image whose identity is as before is not looked at again."""
    images: dict[str, JSON] = {name: _image(build, name, before.get(name)) for name in ("native", "base")}
    said = {name: build.value(f"external.{name}") for name in _SAID}
    return {"options": _options(build.options, build.world.keys.component_key()), "said": said, **images}


def _image(build: Build, name: str, known: Any) -> JSON:
    """What the native or base image is; one whose identity is as before is not looked at again."""
    key = build.world.keys.component_key()
    identity = str(secret_id(key, build.value(f"external.{name}")))
    if isinstance(known, Mapping) and known.get("id") == identity:
        return dict(known)
    source = build.native if name == "native" else build.base
    return {"id": identity, **_parts(source(), key)}


def changed_external(build: Build, name: str, before: Mapping[str, Any]) -> tuple[str, ...]:
    """Lines for an external input that differs from the last build's."""
    if not before:
        return (f"{_TEXTS[name]}",)
    options = _options(build.options, build.world.keys.component_key())
    lines = list(changed_options(before["options"], options, OPTIONS_OF[name]))
    if name in ("native", "base"):
        lines += changed_image(name, before[name], _image(build, name, before[name]))
    elif name in _SAID:
        was, now = before["said"].get(name), build.value(f"external.{name}")
        lines += [change(_TEXTS[name], str(was), str(now))] if was != now else []
    return tuple(lines) or (_TEXTS[name],)


def changed_options(old: Mapping[str, Any], new: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """`--NAME: OLD -> NEW` for each option that differs; of a secret one only that it does."""
    return tuple(option_change(name, old.get(name), new[name]) for name in names if _plain(old.get(name)) != _plain(new[name]))


def option_change(name: str, old: Any, new: Any) -> str:
    """Say one option's change as a user would write the values."""
    option = BY_NAME.get(name)
    if option is None or is_secret(name):
        return f"--{name} changed" + (" (its value is secret)" if option is not None else "")
    if option.repeat:
        was, now = list(old or ()), list(new or ())
        parts = [f"- {item}" for item in was if item not in now] + [f"+ {item}" for item in now if item not in was]
        return f"--{name}: {', '.join(parts) or 'in another order'}"
    texts = [_said(option, value) for value in (old, new)]
    return f"--{name}: {texts[0]} -> {texts[1]}"


def _said(option: Option, value: Any) -> str:
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else option.show(value)


def changed_image(name: str, old: Mapping[str, Any], new: Any) -> list[str]:
    """Which layer, counted from the lowest, and which key of the config."""
    what = _IMAGES[name]
    before, after = list(old["layers"]), list(new["layers"])
    count = max(len(before), len(after))
    lines = []
    for index in range(count):
        was = before[index] if index < len(before) else None
        now = after[index] if index < len(after) else None
        if was != now:
            how = "is new" if was is None else "is gone" if now is None else "changed"
            lines.append(f"{what}: layer {index + 1} of {count} {how}")
    lines += [f"{what}: config, {key}" for key in changed_keys(old["config"], new["config"])]
    if not lines and old["id"] != new["id"]:
        lines.append(f"{what}: a file, or its metadata, changed")
    return lines


_IMAGES = {"native": "the native image", "base": "the base image"}
_TEXTS = {
    "signer": "the key that signs the enclave is another one",
    "native": "the native image changed",
    "base": "the base image changed",
    "fspf_key_id": "the key of the protected files is another one (root key, project or repository)",
    "session": "the session's name",
    "embedded_pin": "the embedded CAS has another key",
    "cas_roots": "the roots that the CAS is attested under changed",
    "template": "the template's text changed",
    "resources": "the folder of the build resources",
    "runtime": "the runtime is another build",
    "epoch": "SOURCE_DATE_EPOCH",
}


def _parts(image: SourceImage, key: bytes) -> dict[str, JSON]:
    """Layers and config as keyed ids: a layer may hold little but one protected file, a variable a password."""
    config: dict[str, JSON] = {}
    for name, value in asdict(image.config).items():
        if name == "raw":
            continue
        if name == "env":
            pairs = (item.partition("=") for item in value)
            config[name] = {variable: str(secret_id(key, text)) for variable, _, text in pairs}
        else:
            config[name] = str(secret_id(key, value))
    return {"layers": [str(secret_id(key, str(digest))) for digest in image.diff_ids], "config": config}


def _options(options: Options, key: bytes) -> dict[str, JSON]:
    names = [option.name for option in OPTIONS if option.yaml]
    return {
        name: f"keyed:{secret_id(key, options[name])}" if is_secret(name) and options[name] else options[name] for name in names
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
