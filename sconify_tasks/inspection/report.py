"""What there is to say about a sconified ELF, and its image: claims, what was recomputed, and whether they agree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from sconify_tasks.errors import VerificationError
from sconify_tasks.inspection.embedded import Embedded, inspect_embedded
from sconify_tasks.inspection.subject import Subject
from sconify_tasks.sconified import ELF, FILE_SYSTEM, Place, Sconified, read_sconified
from sconify_tasks.sgx.claims import bits_of
from sconify_tasks.sgx.layout import EXECUTE, READ, STACK_PAGES, THREAD_PAGES, WRITE, layout
from sconify_tasks.sgx.measured_config import PAGE, MeasuredConfig
from sconify_tasks.sgx.measurement import EnclaveError, MrEnclave
from sconify_tasks.sgx.sgxs import measure
from sconify_tasks.sgx.signer import DEBUG_MRSIGNER
from sconify_tasks.sgx.sigstruct import Sigstruct, verify_sigstruct
from sconify_tasks.world import RUNTIMES

VERSION = 1
_MANIFEST, _EXECUTABLES = b"/fspf/fs.fspf", b"/fspf/x"
_LARGEST_MANIFEST = 1 << 30
_CHUNK = 1 << 20
_SESSION = {"SCONE_CONFIG_ID": "config_id", "SCONE_CAS_ADDR": "cas", "SCONE_LAS_ADDR": "las"}


class Report(Struct, frozen=True, kw_only=True):
    """`measured` is recomputed from the file; `problems` say what does not verify. `document` is all of it, JSON-able."""

    subject: Subject
    found: Sconified
    measured: MrEnclave
    problems: tuple[str, ...]
    document: Mapping[str, Any]

    def require_verified(self) -> None:
        """VerificationError for what does not verify."""
        if self.problems:
            raise VerificationError(f"{self.subject.name}: {'; '.join(self.problems)}", hint="don't run it; build it again")


def inspect(subject: Subject) -> Report:
    """Read, recompute and verify. EnclaveError for what is no sconified ELF at all; what does not verify is a problem."""
    found = read_sconified(subject.file)
    measured = measure(subject.file, found.config)
    embedded = _embedded(subject.file, found)
    problems = tuple(_problems(subject.file, found, measured)) + ((embedded.problem,) if embedded.problem else ())
    sigstruct = found.sigstruct
    document: dict[str, Any] = {
        "v": VERSION,
        "source": subject.name,
        **({"path": subject.place} if subject.place else {}),
        "verified": not problems,
        "problems": list(problems),
        "mrenclave": sigstruct.mrenclave,
        "measured": measured,
        "mrsigner": sigstruct.mrsigner,
        "signer": "the published debug key, which protects nothing"
        if sigstruct.mrsigner == DEBUG_MRSIGNER
        else "a key of its own",
        "signature": _signature(sigstruct),
        "runtime": runtime_of(found.config, measured),
        "config": found.config.as_json(),
        "enclave": _enclave(subject, found.config),
        **({"embedded": embedded.document} if embedded.document else {}),
        "sections": {name.removeprefix(".sconify."): place.size for name, place in found.sections.items()},
    }
    if subject.image is not None:
        document |= {"image": _image(subject), "session": _session(subject), "files": _files(subject)}
    return Report(subject=subject, found=found, measured=measured, problems=problems, document=document)


def runtime_of(config: MeasuredConfig, measured: MrEnclave) -> str:
    """Whose runtime it is: a measurement agrees with its own file also where the runtime in it is somebody else's."""
    for path in sorted(RUNTIMES.glob("runtime-*")):
        if measure(path, config) == measured:
            return f"this installation's, {path.name.removeprefix('runtime-')}"
    return "not this installation's"


def _problems(file: Path, found: Sconified, measured: MrEnclave) -> list[str]:
    problems = []
    try:
        verify_sigstruct(found.sigstruct)
    except EnclaveError as error:
        problems.append(error.message)
    if found.sigstruct.mrenclave != measured:
        problems.append(f"the signature is for MRENCLAVE {found.sigstruct.mrenclave}, and the file measures {measured}")
    if ELF in found.sections and _digest(file, found.sections[ELF]) != found.config.binary.sha256:
        problems.append("the original program in it is not the one that was measured")
    return problems


def _embedded(file: Path, found: Sconified) -> Embedded:
    if found.config.binary_fs is None:
        return Embedded()
    return inspect_embedded(file, found.sections[FILE_SYSTEM], found.config.binary_fs)


def _digest(file: Path, place: Place) -> str:
    digest, left = hashlib.sha256(), place.size
    with file.open("rb") as stream:
        stream.seek(place.offset)
        while left and (block := stream.read(min(_CHUNK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _signature(sigstruct: Sigstruct) -> dict[str, Any]:
    date = str(sigstruct.date).zfill(8)
    return {
        "mode": "debug" if sigstruct.debug else "production",
        "isvprodid": sigstruct.isv_prod_id,
        "isvsvn": sigstruct.isv_svn,
        "date": f"{date[:4]}-{date[4:6]}-{date[6:]}",
        # The format has no others: `parse_sigstruct` refuses them.
        "attributes": ["MODE64BIT", *(["DEBUG"] if sigstruct.debug else []), *map(_attribute, sigstruct.attributes)],
        "kss": False,
        "xfrm": bits_of(sigstruct.attributes)[1],
    }


def _attribute(name: str) -> str:
    return name.upper().replace("-", "_")


def _enclave(subject: Subject, config: MeasuredConfig) -> dict[str, Any]:
    """The measured address range, from its base: what lies where with which permissions."""
    made = layout(subject.file, config)
    regions = [
        {
            "what": "runtime",
            "offset": segment.start,
            "size": segment.end - segment.start,
            "permissions": _permissions(segment.flags),
        }
        for segment in made.segments
    ]
    regions.append({"what": "config", "offset": made.config_offset, "size": len(made.config), "permissions": "r--"})
    regions.append(
        {
            "what": f"{made.threads} threads, {STACK_PAGES} pages of stack each",
            "offset": made.threads_offset,
            "size": made.threads * THREAD_PAGES * PAGE,
            "permissions": "rw-",
        }
    )
    return {"size": made.size, "regions": regions}


def _permissions(flags: int) -> str:
    return "".join(letter if flags & bit else "-" for letter, bit in (("r", READ), ("w", WRITE), ("x", EXECUTE)))


def _image(subject: Subject) -> dict[str, Any]:
    assert subject.image is not None
    config = subject.image.config
    return {"platform": f"{config.os}/{config.architecture}", "user": config.user, "layers": len(subject.image.diff_ids)}


def _session(subject: Subject) -> dict[str, Any]:
    """Where the image finds its session; addresses are advice, the pin in the measured config decides."""
    assert subject.image is not None
    variables = dict(item.partition("=")[::2] for item in subject.image.config.env)
    return {key: variables.get(name, "") for name, key in _SESSION.items()}


def _files(subject: Subject) -> dict[str, Any]:
    """What is to be seen of protected files without their key: regions and entries are sealed in the manifest."""
    image = subject.image
    assert image is not None
    if image.lstat(_MANIFEST) is None:
        return {"manifest": 0}
    content = image.read(_MANIFEST, limit=_LARGEST_MANIFEST)
    return {
        "manifest": len(content),
        "fspf_tag": hashlib.sha256(content).hexdigest()[:32],
        "regions": "sealed in the manifest: only the session has its key",
        "encrypted_executables": len(image.listdir(_EXECUTABLES)),
    }
