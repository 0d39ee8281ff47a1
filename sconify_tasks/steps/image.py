"""image: base and layers become one image: its config, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

from sconify_tasks.errors import UsageError
from sconify_tasks.graph import LAYERS
from sconify_tasks.image.compose import compose_config, refuse_native_as_base
from sconify_tasks.image.model import Sha256
from sconify_tasks.image.source import SeenSource, SourceImage
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the config, and the layers above the base's."""
    native, base = context.native(), context.base()
    # A folder has a layer as a base only: then it is compared with the native one, by content.
    layered = native.diff_ids or not base.diff_ids
    same = not layered and isinstance(native, SeenSource) and base.identity == native.content_identity()
    refuse_native_as_base(base.diff_ids, native.diff_ids, same=same)
    layers = [facts for name in LAYERS if isinstance(facts := context.fact(f"{name}_layer"), Mapping)]
    config = compose_config(
        base=base.config,
        native=native.config,
        entrypoint=context.text("path"),
        env=_environment(context),
        base_diff_ids=base.diff_ids,
        layer_diff_ids=[Sha256(str(facts["diff_id"])) for facts in layers],
        epoch=context.number("epoch"),
        user=_numeric_user(native, base),
    )
    context.note(f"base image {base.name}: {base.identity}")
    return Outputs(blobs={"config": context.world.store.put(config)}, facts={"base": [str(digest) for digest in base.diff_ids]})


def _environment(context: Context) -> list[str]:
    """What the runtime needs to find its session, and what it compares with the measured config."""
    options = context.options
    variables = {
        "SCONE_CONFIG_ID": f"{context.text('session')}/{options['service-name']}",
        "SCONE_CAS_ADDR": _host(options.text("cas") or "localhost"),
        "SCONE_LAS_ADDR": options.text("las"),
        "SCONE_HEAP": options.number("heap"),
        "SCONE_STACK": options.number("stack"),
        "SCONE_ALLOW_DLOPEN": options.number("dlopen"),
        "SCONE_FORK": options.number("fork"),
        "SCONE_MPROTECT": options.number("mprotect"),
    }
    if options.text("log"):
        variables["SCONE_LOG"] = options.text("log")
    return [f"{name}={value}" for name, value in variables.items()]


def _host(address: str) -> str:
    """The host of HOST[:PORT]: the port that takes sessions is not the one that enclaves ask."""
    host, _, port = address.rpartition(":")
    return host if host and port.isdigit() and not host.endswith(":") else address


def _numeric_user(native: SourceImage, base: SourceImage) -> str:
    """The native user, by number where the base does not know its name: an engine refuses a name that it can't look up."""
    user, _, group = native.config.user.partition(":")
    if not user or base.lstat(b"/etc/passwd") is not None:
        return native.config.user
    numbers = _look_up(native, b"/etc/passwd", user, own_group=True)
    if group:
        numbers = f"{numbers.partition(':')[0]}:{_look_up(native, b'/etc/group', group)}"
    return numbers


def _look_up(native: SourceImage, database: bytes, name: str, *, own_group: bool = False) -> str:
    """`UID:GID` of a user, GID of a group; numbers stay what they are."""
    if name.isdigit():
        return name
    entry = native.lstat(database)
    lines = native.read(database, limit=1 << 20).decode(errors="replace").splitlines() if entry else []
    for line in lines:
        # passwd(5): name, password, UID, GID; group(5): name, password, GID.
        found, _, number, group, *_ = (*line.split(":"), "", "", "", "")
        if found == name and number.isdigit() and (group.isdigit() or not own_group):
            return f"{number}:{group}" if own_group else number
    raise UsageError(f"the native image runs as {name}, which its {database.decode()} does not know", hint="repair its USER")
