"""The graph: every step of an image, what it takes and which options it sees. In topological order.

What a step does is in the file of its name under `steps/`, loaded when it runs: a run that finds nothing to do loads none.
`version` goes up when a step's output bytes would change for the same inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

from sconify_tasks.step import Step

# What is selected of the native image.
_SELECTION = frozenset({"dir", "plain", "plain-file", "host-path"})
# Where the CAS is, who it must be, and who asks.
_CAS = frozenset({"cas", "cas-debug", "cas-key", "cas-root", "disable-attestation", "identity"})
# Our layers and the steps that make them, from what changes least to what changes most.
LAYERS: Mapping[str, str] = {"copied": "copy", "binary": "sconify", "protected": "encrypt", "manifest": "manifest"}
_IMAGE: Mapping[str, str] = {
    "config": "image.config",
    "base_layers": "image.base",
    **{f"{name}_blob": f"{step}.layer" for name, step in LAYERS.items()},
    **{f"{name}_layer": f"{step}.layer_facts" for name, step in LAYERS.items()},
}

STEPS: tuple[Step, ...] = (
    Step(
        name="inspect",
        version=1,
        inputs={"native": "external.native"},
        reads=frozenset({"disable-copy-envvars", "disable-ld-library-path-in-session", "env"}),
        secret=True,
    ),
    Step(
        name="binary",
        version=3,
        inputs={"native": "external.native", "config": "inspect.config", "path_variable": "inspect.path"},
        reads=_SELECTION | {"binary", "command", "disable-binary-symlink-detection", "disable-pie-check"},
        secret=True,
    ),
    Step(
        name="files",
        version=5,
        whole=frozenset({"secret", "salts", "public"}),
        inputs={
            "native": "external.native",
            "binary": "binary.path",
            "binary_links": "binary.links",
            "scripts": "binary.scripts",
            "config": "inspect.config",
        },
        reads=_SELECTION | {"disable-copy-service-libraries", "disable-configuration-check"},
        secret=True,
    ),
    Step(
        name="libraries",
        version=2,
        inputs={
            "native": "external.native",
            "binary": "binary.path",
            "static": "binary.static",
            "interpreter": "binary.interpreter",
            "objects": "files.objects",
            "library_path": "inspect.library_path",
        },
        reads=frozenset({"disable-copy-shared-object-dependencies"}),
        secret=True,
    ),
    Step(
        name="cas",
        version=1,
        inputs={"embedded": "external.embedded_pin", "roots": "external.cas_roots"},
        reads=_CAS | {"disable-session-upload"},
        secret=True,
    ),
    Step(
        name="sign",
        version=1,
        inputs={
            "path": "binary.path",
            "sha256": "binary.sha256",
            "size": "binary.size",
            "protected": "binary.protected",
            "architecture": "binary.architecture",
            "runtime": "external.runtime",
            "pin": "cas.pin",
            "signer": "external.signer",
            "epoch": "external.epoch",
        },
        reads=frozenset({"heap", "stack", "dlopen", "fork", "mprotect", "threads"})
        | {"isvprodid", "isvsvn", "signing-date", "enclave-mode", "enclave-attributes"},
    ),
    Step(
        name="encrypt",
        version=2,
        whole=frozenset({"secret", "salts"}),
        inputs={
            "secret": "files.secret",
            "salts": "files.salts",
            "binary": "binary.path",
            "architecture": "binary.architecture",
            "runtime": "external.runtime",
            "key_id": "external.fspf_key_id",
        },
    ),
    Step(
        name="copy",
        version=2,
        whole=frozenset({"public"}),
        inputs={
            "base": "external.base",
            "config": "inspect.config",
            "public": "files.public",
            "parents": "files.parents",
            "roots": "files.roots",
            "regions": "files.regions",
            "libraries": "libraries.tree",
            "library_parents": "libraries.parents",
            "file_links": "files.links",
            "library_links": "libraries.links",
            "binary_links": "binary.links",
            "binary": "binary.path",
            "main": "binary.entry",
            "protected": "binary.protected",
        },
    ),
    Step(
        name="sconify",
        version=1,
        inputs={
            "config": "sign.config",
            "sigstruct": "sign.sigstruct",
            "elf": "binary.original",
            "path": "binary.path",
            "protected": "binary.protected",
            "architecture": "binary.architecture",
            "runtime": "external.runtime",
        },
    ),
    Step(
        name="manifest",
        version=2,
        whole=frozenset({"salts", "copied"}),
        inputs={
            "base": "external.base",
            "salts": "files.salts",
            "binary": "binary.path",
            "copied": "copy.entries",
            "libraries": "libraries.tree",
            "regions": "files.regions",
            "key_id": "external.fspf_key_id",
        },
        secret=True,
    ),
    Step(
        name="image",
        version=1,
        inputs={
            "native": "external.native",
            "base": "external.base",
            "session": "external.session",
            "epoch": "external.epoch",
            "path": "binary.path",
            "copied_layer": "copy.layer_facts",
            "binary_layer": "sconify.layer_facts",
            "protected_layer": "encrypt.layer_facts",
            "manifest_layer": "manifest.layer_facts",
        },
        reads=frozenset({"cas", "las", "service-name", "heap", "stack", "dlopen", "fork", "mprotect", "log"}),
    ),
    Step(
        name="verify",
        version=2,
        whole=frozenset({"secret", "public", "embedded"}),  # the last one in its place with --binary-fs
        inputs={
            **_IMAGE,
            "secret": "files.secret",
            "public": "files.public",
            "libraries": "libraries.tree",
            "tag": "manifest.tag",
            "binary": "binary.path",
            "base": "external.base",
            "key_id": "external.fspf_key_id",
        },
        secret=True,
    ),
    Step(
        name="policy",
        version=1,
        inputs={
            "config": "inspect.config",
            "binary": "binary.path",
            "command": "binary.command",
            "mrenclave": "sign.mrenclave",
            "mrsigner": "external.signer",
            "tag": "manifest.tag",
            "session": "external.session",
            "template": "external.template",
            "key_id": "external.fspf_key_id",
        },
        reads=frozenset(
            {
                "env",
                "service-name",
                "disable-copy-envvars",
                "disable-ld-library-path-in-session",
                "allow-tcb-vulnerabilities",
                "allow-debug-mode",
                "disable-session-security-attestation",
                "attest-signer",
                "isvprodid",
                "isvsvn",
            }
        ),
        secret=True,
    ),
    Step(
        name="deliver",
        version=1,
        # What was not verified is not delivered.
        inputs={**_IMAGE, "verified": "verify.protected"},
        reads=frozenset({"to"}),
        effect=True,
    ),
    Step(
        name="resources",
        version=3,
        # The image goes first: where it could not be delivered, no session of it is left behind.
        inputs={**_IMAGE, "session": "policy.session", "folder": "external.resources", "delivered": "deliver.identity"},
        reads=frozenset({"base", "session"}),
        secret=True,
        effect=True,
    ),
    Step(
        name="upload",
        version=1,
        # The image goes first: a session must not name an image that could not be delivered.
        inputs={
            "session": "policy.session",
            "name": "external.session",
            "pin": "cas.pin",
            "delivered": "deliver.identity",
        },
        reads=_CAS | {"create-namespace", "namespace", "disable-update-session-if-exists"},
        secret=True,
        effect=True,
    ),
)
