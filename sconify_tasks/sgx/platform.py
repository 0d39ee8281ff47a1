"""The simulated SGX platform: a software quoting key under a root of its own, so that quotes exist without a processor.

It makes everything a real platform and its manufacturer make (PCK chain, CRLs, TCB info, QE identity, quotes), in the
same formats, so that simulated and real quotes take one path in `verify`. It protects nothing: whoever reads its state
file can sign any quote. Hence every name says SIMULATED, its root is trusted only where it was added or made, and the
LAS sets DEBUG in every quote.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from sconify_tasks.errors import StoreError
from sconify_tasks.sgx.collateral import Collateral
from sconify_tasks.sgx.private_file import create_private, read_private
from sconify_tasks.sgx.quote import AUTH_DATA_LENGTH, INIT, MODE64BIT, Header, Quote, ReportBody

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

MARK = "SIMULATED"
FMSPC = b"SIMULA"
PCE_ID = b"\0\0"
CPU_SVN = b"\x01" * 16
PCE_SVN = 1
SGX_EXTENSION = "1.2.840.113741.1.13.1"

_STATE_VERSION = 1
_STATE_FILE = "platform.json"
_QE_MRENCLAVE = hashlib.sha256(b"SIMULATED quoting enclave").digest()
_QE_MRSIGNER = hashlib.sha256(b"SIMULATED quoting enclave signer").digest()
_CERTIFICATE_LIFE = timedelta(days=30 * 365)
_COLLATERAL_LIFE = timedelta(days=30)
_CERTIFICATES = ("root", "pck-ca", "pck", "tcb")
_KEYS = (*_CERTIFICATES, "attestation")


class SimulatedPlatform(Struct, frozen=True, kw_only=True):
    """Keys and certificates of one simulated platform and of its simulated manufacturer."""

    keys: dict[str, EllipticCurvePrivateKey]
    certificates: dict[str, x509.Certificate]

    @property
    def root_pem(self) -> str:
        """The root certificate, for those who decide to trust it."""
        return self._chain("root")

    @property
    def root_der(self) -> bytes:
        """The same certificate as DER."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self.certificates["root"].public_bytes(Encoding.DER)

    def quote(self, report: ReportBody) -> bytes:
        """Sign a quote over a report body. The platform's CPUSVN takes the place of the report's."""
        auth_data = hashlib.sha256(b"SIMULATED authentication data").digest()[:AUTH_DATA_LENGTH]
        attestation_key = _raw_public(self.keys["attestation"])
        qe_report = ReportBody(
            mr_enclave=_QE_MRENCLAVE,
            mr_signer=_QE_MRSIGNER,
            report_data=hashlib.sha256(attestation_key + auth_data).digest() + bytes(32),
            flags=INIT | MODE64BIT,
            isv_prod_id=1,
            isv_svn=1,
            cpu_svn=CPU_SVN,
        )
        unsigned = Quote(
            header=Header(qe_svn=1, pce_svn=PCE_SVN, user_data=MARK.encode().ljust(20, b"\0")),
            report=replace(report, cpu_svn=CPU_SVN),
            signature=bytes(64),
            attestation_key=attestation_key,
            qe_report=qe_report,
            qe_signature=_sign(self.keys["pck"], qe_report.to_bytes()),
            auth_data=auth_data,
            pck_chain=self._chain("pck", "pck-ca", "root").encode(),
        )
        return replace(unsigned, signature=_sign(self.keys["attestation"], unsigned.signed_bytes)).to_bytes()

    def collateral(self, now: datetime) -> Collateral:
        """Collateral valid on the day of `now` and for 29 days after it."""
        issued = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)  # clocks differ a little
        chain = self._chain("tcb", "root")
        tcb_info = _dump(_tcb_info(issued))
        qe_identity = _dump(_qe_identity(issued))
        return Collateral(
            pck_crl_issuer_chain=self._chain("pck-ca", "root"),
            root_ca_crl=self._crl("root", issued),
            pck_crl=self._crl("pck-ca", issued),
            tcb_info_issuer_chain=chain,
            tcb_info=tcb_info,
            tcb_info_signature=_sign(self.keys["tcb"], tcb_info.encode()),
            qe_identity_issuer_chain=chain,
            qe_identity=qe_identity,
            qe_identity_signature=_sign(self.keys["tcb"], qe_identity.encode()),
        )

    def to_json(self) -> bytes:
        """Everything, private keys included: for a private file only."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        keys = {
            name: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            for name, key in self.keys.items()
        }
        certificates = {name: self._chain(name) for name in self.certificates}
        state = {"v": _STATE_VERSION, "what": f"{MARK} SGX platform", "keys": keys, "certificates": certificates}
        return json.dumps(state, indent=1).encode()

    def _chain(self, *names: str) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding

        return "".join(self.certificates[name].public_bytes(Encoding.PEM).decode() for name in names)

    def _crl(self, issuer: str, issued: datetime) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding

        key = self.keys[issuer]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificates[issuer].subject)
            .last_update(issued)
            .next_update(issued + _COLLATERAL_LIFE)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def new_platform(now: datetime) -> SimulatedPlatform:
    """Draw the keys and sign the certificates of a platform that nobody has seen before."""
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in _KEYS}
    since = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    root = _certificate("Root CA", keys["root"], issuer=None, signer=keys["root"], since=since, ca=1)
    pck_ca = _certificate("PCK Processor CA", keys["pck-ca"], issuer=root, signer=keys["root"], since=since, ca=0)
    pck = _certificate("PCK Certificate", keys["pck"], issuer=pck_ca, signer=keys["pck-ca"], since=since, sgx=_sgx_extension())
    tcb = _certificate("TCB Signing", keys["tcb"], issuer=root, signer=keys["root"], since=since)
    return SimulatedPlatform(keys=keys, certificates={"root": root, "pck-ca": pck_ca, "pck": pck, "tcb": tcb})


def parse_platform(state: bytes) -> SimulatedPlatform:
    """Read what `to_json` wrote. Raises ValueError for anything else."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    value: Any = json.loads(state)
    if not isinstance(value, dict) or value.get("v") != _STATE_VERSION:
        raise ValueError("not a simulated platform of a version this program knows")
    keys: dict[str, EllipticCurvePrivateKey] = {}
    try:
        for name in _KEYS:
            key = load_pem_private_key(value["keys"][name].encode(), password=None)
            if not isinstance(key, EllipticCurvePrivateKey):
                raise TypeError(f"{name} is not an EC key")  # noqa: TRY301
            keys[name] = key
        certificates = {name: x509.load_pem_x509_certificate(value["certificates"][name].encode()) for name in _CERTIFICATES}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"incomplete: {error}") from error
    return SimulatedPlatform(keys=keys, certificates=certificates)


def open_platform(folder: Path, now: datetime) -> SimulatedPlatform:
    """Load the platform kept in a folder, or make one there. StoreError where the file is damaged or readable by others."""
    path = folder / _STATE_FILE
    state = read_private(path)
    if state is None:
        state = create_private(path, new_platform(now).to_json())
    try:
        return parse_platform(state)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}", hint="restore it, or remove it to get another") from error


def _tcb_info(issued: datetime) -> dict[str, object]:
    components = [{"svn": svn} for svn in CPU_SVN]
    level = {
        "tcb": {"sgxtcbcomponents": components, "pcesvn": PCE_SVN},
        "tcbDate": _rfc3339(issued),
        "tcbStatus": "UpToDate",
        "advisoryIDs": [],
    }
    return {
        "id": "SGX",
        "version": 3,
        "issueDate": _rfc3339(issued),
        "nextUpdate": _rfc3339(issued + _COLLATERAL_LIFE),
        "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": 1,
        "tcbLevels": [level],
    }


def _qe_identity(issued: datetime) -> dict[str, object]:
    return {
        "id": "QE",
        "version": 2,
        "issueDate": _rfc3339(issued),
        "nextUpdate": _rfc3339(issued + _COLLATERAL_LIFE),
        "tcbEvaluationDataNumber": 1,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": (INIT | MODE64BIT).to_bytes(16, "little").hex().upper(),
        "attributesMask": "FF" * 8 + "00" * 8,
        "mrsigner": _QE_MRSIGNER.hex().upper(),
        "isvprodid": 1,
        "tcbLevels": [{"tcb": {"isvsvn": 1}, "tcbDate": _rfc3339(issued), "tcbStatus": "UpToDate", "advisoryIDs": []}],
    }


def _dump(value: dict[str, object]) -> str:
    # The signature is over these very characters; verifiers never serialise again.
    return json.dumps(value, separators=(",", ":"))


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _certificate(
    name: str,
    key: EllipticCurvePrivateKey,
    *,
    issuer: x509.Certificate | None,
    signer: EllipticCurvePrivateKey,
    since: datetime,
    ca: int | None = None,
    sgx: bytes = b"",
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{MARK} SGX {name}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + _CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=ca is not None, path_length=ca), critical=True)
        .add_extension(_key_usage(ca=ca is not None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if sgx:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX_EXTENSION), sgx), critical=False)
    return builder.sign(signer, SHA256())


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=not ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _sgx_extension() -> bytes:
    """Encode the SGX extension of a PCK certificate (Intel SGX PCK Certificate and CRL Profile, section 1.3.5)."""
    svns = [_pair(f"2.{index}", _der(0x02, bytes([svn]))) for index, svn in enumerate((*CPU_SVN, PCE_SVN), start=1)]
    tcb = _der(0x30, b"".join([*svns, _pair("2.18", _der(0x04, CPU_SVN))]))
    pairs = [
        _pair("1", _der(0x04, os.urandom(16))),
        _pair("2", tcb),
        _pair("3", _der(0x04, PCE_ID)),
        _pair("4", _der(0x04, FMSPC)),
        _pair("5", _der(0x0A, b"\0")),
    ]
    return _der(0x30, b"".join(pairs))


def _pair(suffix: str, value: bytes) -> bytes:
    # 1.2.840.113741.1.13.1 in DER, then arcs that all fit in one byte.
    oid = bytes.fromhex("2a864886f84d010d01") + bytes(int(arc) for arc in suffix.split("."))
    return _der(0x30, _der(0x06, oid) + value)


def _der(tag: int, content: bytes) -> bytes:
    # The shortest form that DER demands, for what occurs here: below 64 KiB.
    length = len(content)
    if length < 0x80:  # noqa: PLR2004 - one byte says it all
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def _sign(key: EllipticCurvePrivateKey, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _raw_public(key: EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
