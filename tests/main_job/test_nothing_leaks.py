"""Nothing of what was to be protected is in what an engine hands out."""

import base64
import gzip
import io
import lzma
import re
import subprocess
import tarfile

import pytest


def _saved(engine, image):
    """Every file of `docker save`, decompressed: config, manifest, layers as whole tars."""
    saved = subprocess.run(["docker", "-H", engine.host, "save", image], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        for member in archive:
            if member.isreg():
                content = archive.extractfile(member).read()
                opened = {b"\x1f\x8b": gzip.decompress, b"\xfd7": lzma.decompress}.get(content[:2])
                yield member.name, opened(content) if opened else content


def _forms(secret: bytes):
    """A secret as it is, in hex, and in base64 at each of the three places it can have in a longer text."""
    yield secret
    yield secret.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret)
        yield encoded[(0, 2, 3)[before] : len(encoded) // 4 * 4 - 4]


def _found(engine, image, secrets):
    """Names of the secrets that are somewhere in the image."""
    forms = [(form, name) for name, secret in secrets.items() for form in _forms(secret)]
    return {name for _, content in _saved(engine, image) for form, name in forms if form in content}


@pytest.fixture
def secrets(native):
    return {f"marker {number}": marker.encode() for number, marker in enumerate(native.markers)}


def test_the_search_finds_every_marker_in_the_native_image(engine, native, secrets):
    assert _found(engine, native.image, secrets) == set(secrets)


def test_no_marker_and_no_key_is_in_the_confidential_image(engine, api, workshop, secrets):
    session = workshop.session_text("api")
    root = bytes.fromhex((workshop.state / "root.key").read_text().strip())
    fspf = [bytes.fromhex(key) for key in re.findall(r"fspf_key: *\"?([0-9a-f]{64})", session)]
    tags = [bytes.fromhex(tag) for tag in re.findall(r"fspf_tag: *\"?([0-9a-f]{32})", session)]
    assert len(fspf) == len(tags) == 1
    keys = {
        "root key": root,
        "root key, text": root.hex().encode(),
        "fspf key": fspf[0],
        "fspf key, text": fspf[0].hex().encode(),
    }
    assert _found(engine, api, secrets | keys | {"fspf tag": tags[0]}) == set()


def test_the_session_holds_what_the_image_does_not(api, workshop, native):
    session = workshop.session_text("api")
    for marker in (native.markers[0], native.markers[1], native.markers[3]):
        assert marker in session
    assert native.markers[2] not in session, "a label of the native image came along"


def test_the_image_takes_no_label_history_or_environment_along(engine, api, native):
    facts = engine.client.api.inspect_image(api)
    assert facts["Config"]["Labels"] in ({}, None)
    assert facts["Config"]["Cmd"] in ([], None)
    assert facts["Config"]["Entrypoint"] == ["/usr/bin/python3.11"]
    assert all(variable.startswith(("SCONE_", "PATH=")) for variable in facts["Config"]["Env"])
    assert not any(native.base in str(step) or "ADD" in str(step) for step in engine.client.api.history(api))
