"""Every option, declared once. The command line, the keys of sconify.yaml, the schema, the help and the docs come from here.

One name, one spelling: the flag is `--NAME`, the key is `NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from sconify_tasks import option_types as kinds
from sconify_tasks.option_types import Kind, Value
from sconify_tasks.sgx.claims import ATTRIBUTES

REQUIRED, OPTIONAL, ATTESTATION = "REQUIRED", "OPTIONAL", "ATTESTATION"
DEFAULTS, BINARY_FS, SIGNING = "DISABLE DEFAULTS", "BINARY FILE SYSTEM", "SIGNING"
KUBERNETES, AZURE, ENCLAVE, BUILD, DEBUG = "KUBERNETES", "AZURE INTEGRATION", "SCONE ENV VARS", "BUILD", "DEBUG"
GROUPS = (REQUIRED, OPTIONAL, ATTESTATION, DEFAULTS, BINARY_FS, SIGNING, KUBERNETES, AZURE, ENCLAVE, BUILD, DEBUG)


class Option(Struct, frozen=True, kw_only=True):
    """One option. A `repeat` option's value is a tuple; every other one's last occurrence wins.

    `aliases` are silent second names, `former` names are accepted with a warning. `secret` values reach keys and records
    only as keyed digests. `yaml` is false for what belongs to a machine or a terminal and not to a project.
    `default_text` says in words what a default of None comes to.
    """

    name: str
    kind: Kind
    group: str
    help: str
    default: Value = None
    metavar: str = ""
    repeat: bool = False
    short: str = ""
    aliases: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    secret: bool = False
    yaml: bool = True
    default_text: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether it stands alone, without a value."""
        return self.kind is kinds.FLAG

    @property
    def initial(self) -> Value:
        """The value when nothing is said."""
        if self.repeat:
            return ()
        return False if self.is_flag else self.default

    def show(self, value: Value) -> str:
        """Write a value as a user would: sizes with their unit."""
        if self.kind is kinds.SIZE and isinstance(value, int):
            return next(
                (f"{value >> bits}{unit}" for bits, unit in ((30, "G"), (20, "M"), (10, "K")) if not value % (1 << bits)),
                str(value),
            )
        return str(value)


def _flag(name: str, group: str, text: str, **more: object) -> Option:
    return Option(name=name, kind=kinds.FLAG, group=group, help=text, **more)  # type: ignore[arg-type]


OPTIONS: tuple[Option, ...] = (
    # --- required
    Option(
        name="from",
        kind=kinds.REFERENCE,
        group=REQUIRED,
        metavar="NATIVE_IMAGE",
        help="the native image; it is read and never changed",
    ),
    Option(name="to", kind=kinds.REFERENCE, group=REQUIRED, metavar="TO_IMAGE", help="the encrypted image that is made"),
    Option(
        name="binary",
        kind=kinds.PROGRAM,
        group=REQUIRED,
        metavar="BINARY",
        help="the program of the native image that runs in the enclave: a path in the image, or a bare name on its PATH",
    ),
    # --- optional
    Option(
        name="name",
        kind=kinds.NAME,
        group=OPTIONAL,
        metavar="SESSION",
        help="name of the session, without its namespace",
        default_text="TO_IMAGE with every character but letters, digits and - replaced by -",
    ),
    Option(
        name="base",
        kind=kinds.REFERENCE,
        group=OPTIONAL,
        metavar="BASE_IMAGE",
        default="alpine:3.10",
        help="image that the encrypted image is built on; there is no fallback. `scratch` is none at all",
    ),
    Option(
        name="command",
        kind=kinds.TEXT,
        group=OPTIONAL,
        metavar="SESSION_CMD",
        secret=True,
        help="command in the session, with shell-like quoting",
        default_text="ENTRYPOINT and CMD of the native image",
    ),
    Option(
        name="env",
        kind=kinds.VARIABLE,
        group=OPTIONAL,
        metavar="KEY=VALUE",
        repeat=True,
        secret=True,
        help="a variable for the session, on top of those of the native image; a later one wins",
    ),
    Option(
        name="cli",
        kind=kinds.REFERENCE,
        group=OPTIONAL,
        metavar="CLI_IMAGE",
        help="the vendor's command-line image; only its own toolchain uses it",
    ),
    Option(
        name="service-name",
        kind=kinds.NAME,
        group=OPTIONAL,
        metavar="SERVICE_NAME",
        default="service",
        help="name of the service in the session: SCONE_CONFIG_ID is NAMESPACE/SESSION/SERVICE_NAME",
    ),
    Option(
        name="dir",
        kind=kinds.IMAGE_PATH,
        group=OPTIONAL,
        metavar="DIRECTORY",
        repeat=True,
        help="a directory to encrypt, with everything below it; `/` is the whole image. Not together with --binary-fs",
    ),
    Option(
        name="plain",
        kind=kinds.IMAGE_PATH,
        group=OPTIONAL,
        metavar="DIRECTORY",
        repeat=True,
        help="a directory to copy as it is, without any protection",
    ),
    Option(
        name="plain-file",
        kind=kinds.IMAGE_PATH,
        group=OPTIONAL,
        metavar="FILE",
        repeat=True,
        help="a file to copy as it is, without any protection",
    ),
    Option(
        name="host-path",
        kind=kinds.IMAGE_PATH,
        group=OPTIONAL,
        metavar="PATH",
        repeat=True,
        help="a path that the program sees as the container has it, unprotected: /etc/hosts, /etc/resolv.conf, a device",
    ),
    Option(
        name="volume",
        kind=kinds.VOLUME,
        group=OPTIONAL,
        metavar="NAME:PATH[:[FROM_SESSION][:TO_SESSION…]]",
        repeat=True,
        help="an encrypted volume at PATH, imported from FROM_SESSION or exported to each TO_SESSION",
    ),
    Option(
        name="cas",
        kind=kinds.ADDRESS,
        group=OPTIONAL,
        metavar="CAS_ADDR",
        help="address of the CAS that takes the session, and that the image asks for it",
        default_text="the embedded CAS of the state folder",
    ),
    Option(
        name="cas-key",
        kind=kinds.DIGEST,
        group=OPTIONAL,
        metavar="HEX",
        help="SHA-256 of the CAS's identity key (SubjectPublicKeyInfo); nobody else can be that CAS. Needs --cas",
        default_text="what the CAS proves when it is attested",
    ),
    Option(
        name="las",
        kind=kinds.ADDRESS,
        group=OPTIONAL,
        metavar="LAS_ADDR",
        default="localhost:18766",
        help="address of the LAS, which makes the quotes, as seen from the container",
    ),
    Option(
        name="template",
        kind=kinds.FILE,
        group=OPTIONAL,
        metavar="TEMPLATE_FILE",
        help="a policy template in place of the built-in one; docs/options.md lists its variables",
        default_text="built in",
    ),
    Option(
        name="session",
        kind=kinds.FILE,
        group=OPTIONAL,
        metavar="SESSION_FILE",
        help="where to leave the session's text, readable for you alone",
        default_text="session.yml in /build-resources where that folder exists, else in ./build-resources",
    ),
    Option(
        name="secrets",
        kind=kinds.FILE,
        group=OPTIONAL,
        metavar="FILE",
        help="YAML of the session's secrets section",
    ),
    Option(
        name="injectedfiles",
        kind=kinds.FILE,
        group=OPTIONAL,
        metavar="FILE",
        help="YAML of the files that the CAS injects into the container",
    ),
    Option(
        name="namespace",
        kind=kinds.NAMESPACE,
        group=OPTIONAL,
        metavar="NAMESPACE",
        help="namespace of the session",
        default_text="derived from the root key and TO_IMAGE, and created when missing",
    ),
    _flag(
        "create-namespace",
        OPTIONAL,
        "create the namespace; warn when it exists already",
        former=("create_namespace",),
    ),
    Option(
        name="identity",
        kind=kinds.FILE,
        group=OPTIONAL,
        metavar="FILE",
        help="PEM file with a PKCS#8 private key and a certificate, to create and update sessions with",
        default_text="made once and kept in the state folder",
    ),
    _flag("push-image", OPTIONAL, "push the encrypted image to its registry"),
    _flag("dry-run", OPTIONAL, "change nothing; print what would be done"),
    _flag("generate-sconefile", OPTIONAL, "write a Sconefile for `scone build`; implies --dry-run"),
    _flag(
        "enable-session-upload",
        OPTIONAL,
        "upload the session; this is the default here, the option exists for scripts of tools where it is not",
    ),
    # --- attestation
    _flag(
        "allow-tcb-vulnerabilities",
        ATTESTATION,
        "let the service run on platforms with known weaknesses: tolerate hyperthreading, insecure-igpu, outdated-tcb,"
        " software-hardening-needed and insecure-configuration, and ignore all advisories",
    ),
    _flag(
        "allow-debug-mode",
        ATTESTATION,
        "let the service run in a debug or simulated enclave, which keeps no secret from its host",
    ),
    _flag("cas-debug", ATTESTATION, "accept a CAS in debug mode, which keeps no secret from its host", former=("cas_debug",)),
    Option(
        name="cas-root",
        kind=kinds.FILE,
        group=ATTESTATION,
        metavar="FILE",
        repeat=True,
        help="PEM file with a root certificate under which quotes are trusted, on top of Intel's and this machine's own",
    ),
    # --- what is done unless told otherwise
    _flag("disable-binary-symlink-detection", DEFAULTS, "add no link such as /usr/bin/python3 beside /usr/bin/python3.7"),
    _flag(
        "disable-copy-shared-object-dependencies",
        DEFAULTS,
        "don't add the shared objects that the binary needs; name those that the base lacks with --plain-file",
    ),
    _flag(
        "disable-copy-service-libraries",
        DEFAULTS,
        "don't add the libraries of a known service, such as /usr/lib/python3.7; known are Python 3, Node.js, Java, Ruby, Perl,"
        " PHP (cli and fpm), nginx and Redis (docs/services.md)",
    ),
    _flag("disable-copy-envvars", DEFAULTS, "leave the native image's environment out of the session"),
    _flag(
        "disable-session-upload",
        DEFAULTS,
        "make the session and upload it nowhere; no CAS is asked",
        former=("no-seesion-upload", "no-session-upload"),
    ),
    _flag("disable-attestation", DEFAULTS, "upload to the CAS without attesting it: not secure"),
    _flag(
        "disable-session-security-attestation",
        DEFAULTS,
        "make a session that anyone can use, without attestation: not secure",
    ),
    _flag(
        "disable-replace-unsconifiable-binaries",
        DEFAULTS,
        "use the image's own binary in every case; the embedded toolchain always does, as it replaces none (docs/services.md)",
    ),
    _flag("disable-update-session-if-exists", DEFAULTS, "fail where the session exists, rather than update it"),
    _flag(
        "disable-ld-library-path-in-session",
        DEFAULTS,
        "generate no LD_LIBRARY_PATH where neither the image nor --env sets one",
    ),
    _flag(
        "disable-configuration-check",
        DEFAULTS,
        "copy the configuration of a known service, readable in the image, without a word",
    ),
    _flag("disable-pie-check", DEFAULTS, "take a binary that is not position-independent without a word"),
    # --- binary file system
    _flag("binary-fs", BINARY_FS, "embed the files in the binary, so that its measurement covers them"),
    Option(
        name="fs-dir",
        kind=kinds.IMAGE_PATH,
        group=BINARY_FS,
        metavar="DIRECTORY",
        repeat=True,
        help="a directory to embed, with everything below it",
    ),
    Option(
        name="fs-file",
        kind=kinds.IMAGE_PATH,
        group=BINARY_FS,
        metavar="FILE",
        repeat=True,
        aliases=("file",),
        help="a file to embed",
    ),
    Option(
        name="crosscompiler",
        kind=kinds.REFERENCE,
        group=BINARY_FS,
        metavar="CROSSCOMPILER_IMAGE",
        help="the vendor's compiler image; only its own toolchain uses it",
    ),
    _flag("disable-binary-fs-defaults", BINARY_FS, "don't embed the image's shared objects and service libraries"),
    # --- signing
    Option(
        name="scone-signer",
        kind=kinds.SIGNER,
        group=SIGNING,
        metavar="PRIVATE_KEY_PATH",
        former=("sign",),
        secret=True,
        help="sign the enclave for production with an RSA-3072 key (exponent 3): a PEM file, a pkcs11: URI or command:PROGRAM",
        default_text="$SCONIFY_SIGNER, else the published debug key",
    ),
    Option(
        name="scone-signer-public-key",
        kind=kinds.FILE,
        group=SIGNING,
        metavar="FILE",
        help="PEM file with the public half of that key; a command: needs it, a token is then not asked for it",
    ),
    Option(
        name="scone-signer-passphrase-file",
        kind=kinds.FILE,
        group=SIGNING,
        metavar="FILE",
        yaml=False,
        help="file whose first line is the key's passphrase, or the token's PIN",
        default_text="$SCONIFY_SIGNER_PASSPHRASE, else asked for on the terminal",
    ),
    Option(
        name="enclave-mode",
        kind=kinds.choice("debug", "production"),
        group=SIGNING,
        metavar="MODE",
        help="whether the signature admits debug enclaves, or production ones only",
        default_text="production with --scone-signer, else debug",
    ),
    Option(
        name="enclave-attributes",
        kind=kinds.choice(*ATTRIBUTES),
        group=SIGNING,
        metavar="NAME",
        repeat=True,
        help=f"an attribute that the signature demands of the enclave: {', '.join(ATTRIBUTES)} (docs/signing.md)",
    ),
    Option(
        name="isvprodid",
        kind=kinds.number(0, 65535),
        group=SIGNING,
        metavar="INT",
        default=0,
        help="product id of the enclave",
    ),
    Option(
        name="isvsvn",
        kind=kinds.number(0, 65535),
        group=SIGNING,
        metavar="INT",
        default=0,
        help="security version number (SVN) of the enclave",
    ),
    Option(
        name="signing-date",
        kind=kinds.DATE,
        group=SIGNING,
        metavar="YYYYMMDD",
        help="date in the signature",
        default_text="SOURCE_DATE_EPOCH, else 20250101",
    ),
    _flag(
        "attest-signer",
        SIGNING,
        "let the session admit every enclave of this signer with this product id and at least this SVN, not just this one",
    ),
    # --- Kubernetes
    Option(
        name="k8s-helm-workload-type",
        kind=kinds.choice("deployment", "statefulset", "daemonset", "job"),
        group=KUBERNETES,
        metavar="TYPE",
        help="write a Helm chart that runs the encrypted image as this resource",
    ),
    Option(
        name="k8s-helm-expose",
        kind=kinds.PORT,
        group=KUBERNETES,
        metavar="PORT",
        help="port that the chart's service offers",
    ),
    Option(
        name="k8s-helm-output-dir",
        kind=kinds.FOLDER,
        group=KUBERNETES,
        metavar="DIRECTORY",
        default="/sconify-helm",
        aliases=("k8s-helm-output",),
        help="folder for the chart",
    ),
    Option(
        name="k8s-helm-volume",
        kind=kinds.MOUNT,
        group=KUBERNETES,
        metavar="NAME:PATH",
        repeat=True,
        help="an unprotected volume of the chart",
    ),
    Option(
        name="k8s-helm-manifests",
        kind=kinds.FOLDER,
        group=KUBERNETES,
        metavar="PATH",
        help="render the chart's manifests into this folder",
    ),
    Option(
        name="k8s-helm-set",
        kind=kinds.SETTING,
        group=KUBERNETES,
        metavar="PARAM=VALUE",
        repeat=True,
        secret=True,
        help="default value of one of the chart's parameters",
    ),
    # --- Azure
    Option(
        name="azure-attestation",
        kind=kinds.URL,
        group=AZURE,
        metavar="MAA_URL",
        help="have services attested by this Microsoft Azure Attestation provider as well",
    ),
    # --- the enclave's settings
    Option(
        name="heap",
        kind=kinds.SIZE,
        group=ENCLAVE,
        metavar="SIZE",
        default=1 << 30,
        help="size of the heap [SCONE_HEAP]; measured, not enforced in simulation",
    ),
    Option(
        name="stack",
        kind=kinds.SIZE,
        group=ENCLAVE,
        metavar="SIZE",
        default=1 << 20,
        help="size of each thread's stack [SCONE_STACK]; measured, not enforced in simulation",
    ),
    Option(
        name="dlopen",
        kind=kinds.level(0, 1, 2),
        group=ENCLAVE,
        metavar="0|1|2",
        default=1,
        help="loading of shared objects while the program runs: 0 none, 1 those that authenticate, 2 any, for debugging"
        " [SCONE_ALLOW_DLOPEN]",
    ),
    Option(
        name="fork",
        kind=kinds.level(0, 1),
        group=ENCLAVE,
        metavar="0|1",
        default=0,
        help="whether the program may fork [SCONE_FORK]; measured, not enforced: under the shield a fork is safe",
    ),
    Option(
        name="mprotect",
        kind=kinds.level(0, 1),
        group=ENCLAVE,
        metavar="0|1",
        default=1,
        help="whether the program may change the protection of its pages [SCONE_MPROTECT]; measured, not enforced in"
        " simulation",
    ),
    Option(
        name="threads",
        kind=kinds.number(1, 256),
        group=ENCLAVE,
        metavar="INT",
        default=8,
        help="threads that can be in the enclave at a time (TCS); measured, not enforced in simulation",
    ),
    Option(
        name="log",
        kind=kinds.choice("trace", "debug", "info", "warning", "error", "fatal"),
        group=ENCLAVE,
        metavar="LEVEL",
        help="log level of the runtime [SCONE_LOG]",
        default_text="the runtime's",
    ),
    # --- the build
    Option(
        name="platform",
        kind=kinds.choice("linux/amd64", "linux/arm64"),
        group=BUILD,
        metavar="OS/ARCH",
        default="linux/amd64",
        help="which image to take where the native one has several",
    ),
    Option(
        name="toolchain",
        kind=kinds.choice("embedded"),
        group=BUILD,
        metavar="NAME",
        default="embedded",
        help="what makes the enclave; `embedded` needs neither a vendor's image nor a licence",
    ),
    Option(
        name="key-epoch",
        kind=kinds.number(0, 999_999_999),
        group=BUILD,
        metavar="INT",
        default=0,
        help="raise it to encrypt under a new key",
    ),
    Option(
        name="root-key",
        kind=kinds.FILE,
        group=BUILD,
        metavar="FILE",
        yaml=False,
        help="file with the root key, from which every file system key is derived",
        default_text="made once and kept in the state folder",
    ),
    Option(
        name="state",
        kind=kinds.FOLDER,
        group=BUILD,
        metavar="FOLDER",
        yaml=False,
        help="folder for keys, identities, sessions and the embedded CAS",
        default_text="$SCONIFY_STATE, else sconify under the user's state folder",
    ),
    Option(
        name="cache",
        kind=kinds.FOLDER,
        group=BUILD,
        metavar="FOLDER",
        yaml=False,
        help="folder for the cache",
        default_text="$SCONIFY_CACHE, else sconify under the user's cache folder",
    ),
    Option(
        name="shared-cache",
        kind=kinds.FOLDER,
        group=BUILD,
        metavar="FOLDER",
        yaml=False,
        help="folder of a cache that several users or machines with one root key share; nothing secret goes there",
        default_text="$SCONIFY_SHARED_CACHE, else none",
    ),
    # --- what is shown
    _flag("debug", DEBUG, "print every command that is run", short="x", yaml=False),
    _flag("verbose", DEBUG, "print what was made; keys, environment and secrets are masked", short="v", yaml=False),
    _flag("no-color", DEBUG, "no colours", yaml=False),
    _flag("explain", DEBUG, "say of every step why it runs or does not, down to the file (docs/explain.md)", yaml=False),
    Option(
        name="events",
        kind=kinds.FILE,
        group=DEBUG,
        metavar="FILE",
        yaml=False,
        help="write what happens to FILE as JSON lines (docs/events.md)",
    ),
    Option(
        name="trace",
        kind=kinds.FILE,
        group=DEBUG,
        metavar="FILE",
        yaml=False,
        help="write a Chrome trace of the run to FILE; alone, as in 2020, it means --debug",
    ),
)

BY_NAME: Mapping[str, Option] = MappingProxyType({option.name: option for option in OPTIONS})
