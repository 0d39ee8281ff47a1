"""What the options of one image say together: what is missing, what contradicts, what is not built yet, what to warn about.

Single values were checked when they were read. Nothing that was asked for is ever silently left out.
"""

from __future__ import annotations

from sconify_tasks.errors import UsageError
from sconify_tasks.image.references import archive_of
from sconify_tasks.option_table import BY_NAME, OPTIONS, REQUIRED
from sconify_tasks.options import Options, session_name

NOT_BUILT = frozenset(
    {
        *("volume", "secrets", "injectedfiles", "push-image", "dry-run", "generate-sconefile"),
        "azure-attestation",
        *(name for name in BY_NAME if name.startswith("k8s-helm-")),
    }
)
_VENDORS_PUBLIC_CAS = "scone-cas.cf"
_CONTRADICTIONS = (
    ("dir", "binary-fs", "files are either encrypted in the image or embedded in the binary"),
    ("disable-session-upload", "enable-session-upload", "the session is either uploaded or not"),
    ("disable-session-security-attestation", "azure-attestation", "the service is either attested or not"),
    ("disable-session-security-attestation", "attest-signer", "the service is either attested or not"),
)
# The first is of no use without the second.
_NEEDS = (
    ("fs-dir", "binary-fs"),
    ("fs-file", "binary-fs"),
    ("disable-binary-fs-defaults", "binary-fs"),
    ("cas-key", "cas"),
    ("k8s-helm-expose", "k8s-helm-workload-type"),
    ("k8s-helm-volume", "k8s-helm-workload-type"),
    ("k8s-helm-manifests", "k8s-helm-workload-type"),
    ("k8s-helm-set", "k8s-helm-workload-type"),
)
_WITHOUT_UPLOAD = ("create-namespace", "disable-update-session-if-exists", "disable-attestation", "identity", "cas-debug")
_INSECURE = {
    "disable-attestation": "the CAS is not attested: whoever answers gets the keys",
    "disable-session-security-attestation": "anyone can use this session and get its keys: no service is attested",
    "cas-debug": "a CAS in debug mode is accepted: it keeps no secret from its host",
}


def check(options: Options) -> list[str]:
    """Return warnings. Raise UsageError for what is missing, contradictory or not built yet, naming the options."""
    _check_required(options)
    _check_contradictions(options)
    _check_built(options)
    _check_needs(options)
    return _warnings(options)


def _given(options: Options, name: str) -> bool:
    return options[name] != BY_NAME[name].initial


def _check_required(options: Options) -> None:
    missing = [f"--{option.name}" for option in OPTIONS if option.group == REQUIRED and options[option.name] is None]
    if missing:
        raise UsageError(f"missing: {', '.join(missing)}", hint="say --from=NATIVE_IMAGE --to=TO_IMAGE --binary=BINARY")
    if options["from"] == options["to"]:
        raise UsageError(f"--from and --to are both {options['to']}", hint="give the encrypted image a name of its own")
    for name in ("from", "base"):
        if (file := archive_of(options.text("to"))) is not None and file == archive_of(options.text(name)):
            raise UsageError(
                f"--{name} and --to are both {file}", hint="an archive is written whole: choose another file for --to"
            )
    if options["name"] is None:
        session_name(options.text("to"))


def _check_contradictions(options: Options) -> None:
    for one, other, why in _CONTRADICTIONS:
        if _given(options, one) and _given(options, other):
            raise UsageError(f"--{one} and --{other} contradict each other: {why}", hint="drop one of them")


def _check_needs(options: Options) -> None:
    for one, other in _NEEDS:
        if _given(options, one) and not _given(options, other):
            raise UsageError(f"--{one} means nothing without --{other}", hint=f"add --{other}, or drop --{one}")


def _check_built(options: Options) -> None:
    asked = [f"--{name}" for name in BY_NAME if name in NOT_BUILT and _given(options, name)]
    if asked:
        raise UsageError(f"not built yet: {', '.join(asked)}", hint="leave it out; docs/options.md says what is built")


def _warnings(options: Options) -> list[str]:
    found = [f"--{name}: {what}" for name, what in _INSECURE.items() if options.flag(name)]
    vendors = (name for name in ("cli", "crosscompiler") if _given(options, name))
    found += [f"--{name} is ignored: only the vendor's toolchain uses it" for name in vendors]
    if options.flag("disable-session-upload"):
        useless = [f"--{name}" for name in _WITHOUT_UPLOAD if _given(options, name)]
        found += [f"{name} has no effect with --disable-session-upload" for name in useless]
    if options.flag("binary-fs"):
        found.append("--binary-fs: embedded files can't be changed unseen, and everyone who has the image can read them")
    elif not options.texts("dir"):
        found.append("no --dir: the program starts attested, but no file of it is encrypted")
    if options.flag("allow-tcb-vulnerabilities") and not options.flag("allow-debug-mode"):
        found.append(
            "--allow-tcb-vulnerabilities ignores all advisories; the vendor's CAS takes that only with --allow-debug-mode"
        )
    if options.text("cas").partition(":")[0] == _VENDORS_PUBLIC_CAS:
        found.append(f"--cas={options['cas']} serves only the vendor's runtime, not the embedded one")
    return found
