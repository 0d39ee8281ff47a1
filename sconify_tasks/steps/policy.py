"""policy: the session's text. Private: it holds the key, the command and the environment."""

from __future__ import annotations

from sconify_tasks.errors import UsageError
from sconify_tasks.fspf.names import MANIFEST_PATH
from sconify_tasks.policy.environment import service_environment
from sconify_tasks.policy.model import SessionName, Signer
from sconify_tasks.policy.render import SessionParameters, render
from sconify_tasks.services import detect
from sconify_tasks.sgx.measurement import MrEnclave
from sconify_tasks.sgx.signer import DEBUG_MRSIGNER
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Yield the session as text, in the documented shape."""
    options = context.options
    config = context.load("config")
    environment = service_environment(
        config["env"],
        options.texts("env"),
        copy_native=not options.flag("disable-copy-envvars"),
        generate_ld_library_path=not options.flag("disable-ld-library-path-in-session"),
    )
    service = detect(context.text("binary"))
    tag = context.fact("tag")  # none where the files are in the binary: MRENCLAVE names them
    parameters = SessionParameters(
        name=SessionName(context.text("session")),
        service=options.text("service-name"),
        mrenclaves=(MrEnclave(context.text("mrenclave")),),
        command=tuple(context.load("command")),
        environment={**(service.environment if service else {}), **environment},
        pwd=config["workdir"],
        fspf_key="" if tag is None else context.fspf_key().hex(),
        fspf_tag="" if tag is None else str(tag),
        fspf_path="" if tag is None else MANIFEST_PATH.decode(),
        allow_tcb_vulnerabilities=options.flag("allow-tcb-vulnerabilities"),
        allow_debug_mode=options.flag("allow-debug-mode"),
        attested=not options.flag("disable-session-security-attestation"),
        signer=_signer(context) if options.flag("attest-signer") else None,
    )
    text = _from_template(context, parameters) if context.fact("template") is not None else render(parameters)
    return Outputs(blobs={"session": context.world.store.put(text.encode(), private=True)})


def _signer(context: Context) -> Signer:
    """Who may sign what gets this session's keys; never the key that everybody has."""
    if context.text("mrsigner") == DEBUG_MRSIGNER:
        raise UsageError(
            "--attest-signer with the published debug key: whoever signs with it would get this session's keys",
            hint="name a key of your own with --scone-signer, or leave --attest-signer out",
        )
    return Signer(
        mrsigner=MrEnclave(context.text("mrsigner")),
        isvprodid=context.options.number("isvprodid"),
        isvsvn_min=context.options.number("isvsvn"),
    )


def _from_template(context: Context, parameters: SessionParameters) -> str:
    """The user's own template, filled in; checked as a CAS would check it, before anything is delivered."""
    from sconify_tasks.policy.parse import check_supported, parse_session
    from sconify_tasks.policy.template import render_template

    text = render_template(context.text("template"), parameters, name="--template")
    check_supported(parse_session(text, name="the session made from --template"))
    return text
