"""inspect: what the native image's config says. Private: its environment belongs into the session and nowhere else."""

from __future__ import annotations

import json

from sconify_tasks.policy.environment import service_environment
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the parts of the config that later steps use, as JSON, and where the service looks for programs and libraries."""
    config = context.native().config
    used = {
        "architecture": config.architecture,
        "os": config.os,
        "entrypoint": list(config.entrypoint),
        "cmd": list(config.cmd),
        "env": list(config.env),
        "workdir": config.workdir or "/",
        "user": config.user,
        "exposed_ports": sorted(config.exposed_ports),
        "volumes": sorted(config.volumes),
        "stop_signal": config.stop_signal,
    }
    if config.healthcheck:
        context.warn("the native image's health check is dropped: it would run outside of the attested program")
    blob = context.world.store.put(json.dumps(used, sort_keys=True).encode(), private=True)
    environment = service_environment(
        config.env,
        context.options.texts("env"),
        copy_native=not context.options.flag("disable-copy-envvars"),
        generate_ld_library_path=not context.options.flag("disable-ld-library-path-in-session"),
    )
    # By themselves, so that another variable of the session does not send the finders through the image again.
    paths = {"path": environment.get("PATH", ""), "library_path": environment.get("LD_LIBRARY_PATH", "")}
    return Outputs(blobs={"config": blob}, facts=paths)
