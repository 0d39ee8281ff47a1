"""upload: the session into the CAS. An equal one is left as it is; a changed one becomes the next version."""

from __future__ import annotations

from sconify_tasks.cas.errors import SessionNotFoundError
from sconify_tasks.cas.interface import Cas, put_session
from sconify_tasks.policy.model import SessionName
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the hash that the CAS knows the session by."""
    pin = context.fact("pin")
    cas = context.world.cas(context.options, None if pin is None else str(pin))
    text = context.world.store.get(context.blob("session")).decode()
    namespace = SessionName(context.text("name")).namespace
    if namespace is not None and (context.options.flag("create-namespace") or context.options["namespace"] is None):
        if context.options.flag("create-namespace") and _exists(cas, namespace):
            context.warn(f"the namespace {namespace} exists already")
        cas.create_namespace(namespace)
    session_hash = put_session(cas, text, update_if_exists=not context.options.flag("disable-update-session-if-exists"))
    return Outputs(facts={"hash": session_hash})


def _exists(cas: Cas, name: str) -> bool:
    try:
        cas.read_session(name)
    except SessionNotFoundError:
        return False
    return True
