"""sconify-inspect: it says what is there, recomputes it, and finds what changed a measurement."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil

import pytest
from build.small_image import SECRET, convert, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspection.commands import run
from sgx import sdm

from sconify_tasks.errors import SconifyError
from sconify_tasks.image.oci import OciSource
from sconify_tasks.inspection.report import inspect
from sconify_tasks.inspection.subject import Subject
from sconify_tasks.sconified import read_sconified
from sconify_tasks.sgx.signer import DEBUG_MRSIGNER


@pytest.fixture
def binary(made, tmp_path):
    """The sconified file of the first image."""
    image = OciSource(made.layout, "small")
    (tmp_path / "prog").write_bytes(image.read(b"/bin/prog", limit=1 << 26))
    image.close()
    return tmp_path / "prog"


def look(made, *words):
    return run("sconify-inspect", *words, home=made.folder)


def test_an_image_tells_everything_that_needs_no_key(made):
    ended = look(made, "--json", f"oci:{made.layout}:small")
    assert (ended.code, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert found["verified"] is True
    assert found["mrenclave"] == found["measured"]
    assert (found["mrsigner"], found["signer"]) == (DEBUG_MRSIGNER, "the published debug key, which protects nothing")
    assert found["signature"]["mode"] == "debug"
    assert found["signature"]["date"] == "2025-01-01"
    assert found["runtime"] == "this installation's, amd64"
    assert found["config"]["heap"] == 1 << 30
    assert found["config"]["binary"]["path"] == found["path"] == "/bin/prog"
    assert found["session"]["config_id"].endswith("/service")
    manifest = OciSource(made.layout, "small").read(b"/fspf/fs.fspf", limit=1 << 20)
    assert found["files"]["fspf_tag"] == hashlib.sha256(manifest).hexdigest()[:32]
    assert found["files"]["encrypted_executables"] == 1
    assert {region["what"] for region in found["enclave"]["regions"]} >= {"runtime", "config"}
    assert "app" not in json.dumps(found["files"]), "names of protected files are sealed"


def test_the_text_says_the_same_as_the_json(made):
    text, found = both(made, f"oci:{made.layout}:small")
    assert "embedded" not in text
    assert said(text) == values(found)
    assert text[-len(found["enclave"]["regions"]) - 1 :] == enclave(found)
    assert said(text)["signature.attributes"] == "MODE64BIT DEBUG"


def test_the_text_lists_the_first_hundred_embedded_files_and_counts_the_rest(made, native, place):
    given = {"binary_fs": True, "dir": (), "fs_dir": ("/app",)}
    assert convert(native, place, **given).code == 0
    text, found = both(made, f"oci:{place.layout}:small")
    files = list(found["embedded"]["files"])
    assert files == ["/app/run", "/app/secret", "/app/sub/other"]
    assert text[-4:] == ["embedded files:", *(f"  {path}" for path in files)]
    assert said(text) == values(found)
    for number in range(130):
        write(native / f"app/many/{number:03}", b"")
    assert convert(native, place, **given).code == 0
    text, found = both(made, f"oci:{place.layout}:small")
    files = list(found["embedded"]["files"])
    assert text[-102:] == ["embedded files:", *(f"  {path}" for path in files[:100]), "  and 33 more"]
    assert (files[0], len(files)) == ("/app/many/000", 133)


def both(made, name):
    """The lines of the text, and the JSON."""
    return look(made, name).stdout.splitlines(), json.loads(look(made, "--json", name).stdout)


def said(lines):
    """The text's values by their names."""
    pairs = (line.partition(":") for line in itertools.takewhile(lambda line: not line.startswith("enclave of"), lines))
    return {name: value.strip() for name, _, value in pairs}


def values(found):
    """What the text should say for the JSON, but for regions and files, which it lists."""
    assert found.pop("v") == 1
    assert found.pop("problems") == []
    assert found.pop("verified") is True
    told = {name: shown(value) for name, value in leaves(found) if not name.startswith(("enclave.", "embedded.files."))}
    return {"verified": "yes: signature and measurement"} | told


def shown(value):
    if isinstance(value, list):
        return " ".join(value)
    return {"True": "yes", "False": "no", "None": "-", "": "-"}.get(str(value), str(value))


def leaves(value, name=""):
    """Every value in the JSON, under its dotted name."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from leaves(inner, f"{name}.{key}" if name else key)


def enclave(found):
    return [f"enclave of {found['enclave']['size']} bytes:"] + [
        f"  {region['offset']:#010x} {region['size']:>10} {region['permissions']} {region['what']}"
        for region in found["enclave"]["regions"]
    ]


def test_a_file_and_a_folder_are_looked_at_like_the_image(made, binary, tmp_path):
    of_image = json.loads(look(made, "--json", f"oci:{made.layout}:small").stdout)
    of_file = json.loads(look(made, "--json", binary).stdout)
    assert of_file["mrenclave"] == of_image["mrenclave"]
    assert "session" not in of_file
    (tmp_path / "root" / "bin").mkdir(parents=True)
    shutil.copy(binary, tmp_path / "root" / "bin" / "prog")
    (tmp_path / "root.json").write_text(
        json.dumps({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/bin/prog"]}})
    )
    assert json.loads(look(made, "--json", f"dir:{tmp_path}/root").stdout)["mrenclave"] == of_image["mrenclave"]


def test_the_sgxs_stream_is_what_mrenclave_is_the_digest_of_and_a_processor_takes_it(made, tmp_path):
    ended = look(made, "--json", "--sgxs", tmp_path / "stream", f"oci:{made.layout}:small")
    stream = (tmp_path / "stream").read_bytes()
    assert hashlib.sha256(stream).hexdigest() == json.loads(ended.stdout)["mrenclave"]
    assert sdm.Processor(stream).mrenclave == json.loads(ended.stdout)["mrenclave"]
    assert look(made, "--sgxs", tmp_path / "no" / "stream", f"oci:{made.layout}:small").code == 2


def test_two_images_are_compared_and_the_cause_of_another_measurement_is_found(made):
    images = (f"oci:{made.layout}:small", f"oci:{made.folder}/other:small")
    ended = look(made, "--json", *images)
    assert ended.code == 0
    found = json.loads(ended.stdout)
    assert found["same_mrenclave"] is False
    assert found["causes"] == {"config.heap": [1 << 30, 2 << 30]}
    assert found["others"]["signature.isvsvn"] == [0, 3]
    text = look(made, *images).stdout
    assert text.index("changed by:\n  config.heap: 1073741824 -> 2147483648") < text.index("signature.isvsvn: 0 -> 3")
    assert "nothing differs" in look(made, images[0], images[0]).stdout


def test_another_runtime_is_named_as_the_cause(made, binary, tmp_path):
    changed = bytearray(binary.read_bytes())
    place = changed.index(b"Go build ID") if b"Go build ID" in changed else 5000
    changed[place] ^= 1
    (tmp_path / "changed").write_bytes(changed)
    ended = look(made, "--json", binary, tmp_path / "changed")
    assert ended.code == 4, "its signature is of another measurement"
    assert list(json.loads(ended.stdout)["causes"]) == ["runtime"]
    assert json.loads(ended.stdout)["causes"]["runtime"] == ["this installation's, amd64", "not this installation's"]


def test_embedded_files_are_all_to_be_seen_and_checked_and_a_changed_one_is_found(made, native, place, tmp_path):
    hostile = os.fsencode(native / "app") + b"/\x1b]0;title\x07\r\x1b[2J\xff"
    with open(hostile, "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(b"one")
    given = {"binary_fs": True, "dir": (), "fs_dir": ("/app",)}
    assert convert(native, place, **given).code == 0
    (native / "app" / "secret").write_bytes(b"another content")
    with open(hostile, "wb") as file:  # noqa: PTH123
        file.write(b"two")
    assert convert(native, place, to=f"oci:{place.folder}/changed:small", **given).code == 0
    images = (f"oci:{place.layout}:small", f"oci:{place.folder}/changed:small")
    found = json.loads(look(made, "--json", images[0]).stdout)
    assert found["verified"] is True
    assert "/app/secret" in found["embedded"]["files"]
    assert found["embedded"]["count"] == len(found["embedded"]["files"])
    compared = json.loads(look(made, "--json", *images).stdout)
    assert list(compared["causes"]) == ["config.binary_fs"]
    assert list(compared["embedded"]) == ["/app/\x1b]0;title\x07\r\x1b[2J\\xff", "/app/secret"]
    text = look(made, *images).stdout
    assert "embedded files that differ:\n  /app/\\x1b]0;title\\x07\\r\\x1b[2J\\xff: " in text
    assert "\n  /app/secret: " in text
    assert "\n  /app/\\x1b]0;title\\x07\\r\\x1b[2J\\xff\n" in look(made, images[0]).stdout
    # What a name says to a terminal stays a name.
    assert not {"\x1b", "\x07", "\r"} & set(text + look(made, images[0]).stdout)
    image = OciSource(place.layout, "small")
    (tmp_path / "prog").write_bytes(image.read(b"/bin/prog", limit=1 << 26))
    image.close()
    content = (tmp_path / "prog").read_bytes()
    (tmp_path / "prog").write_bytes(content.replace(SECRET, SECRET[::-1]))
    assert (tmp_path / "prog").read_bytes() != content
    ended = look(made, tmp_path / "prog")
    assert ended.code == 4
    assert "the embedded data is damaged" in ended.stderr


@pytest.mark.parametrize(
    ("section", "offset", "reason"),
    [
        (".sconify.sig", 700, "the signature of the SIGSTRUCT is wrong"),
        (".sconify.sig", 1100, "Q1 or Q2 of the SIGSTRUCT is wrong"),
        (".sconify.elf", 5000, "the original program in it is not the one that was measured"),
    ],
)
def test_what_does_not_verify_is_said_and_exits_with_4(section, offset, reason, made, binary):
    place = read_sconified(binary).sections[section]
    content = bytearray(binary.read_bytes())
    content[place.offset + offset] ^= 1
    binary.write_bytes(content)
    ended = look(made, binary)
    assert ended.code == 4
    assert reason in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert f"NO: {reason}" in ended.stdout
    assert json.loads(look(made, "--json", binary).stdout)["verified"] is False


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{native}"], 4, "it is no sconified binary: sconify it first"),
        (["./absent"], 2, "there is no file ./absent"),
        (["absent:1"], 3, "no Docker Engine answers"),
        (["oci:{layout}:absent"], 3, "no image of that tag"),
        (["/dev/null/x"], 2, "there is no file"),
        ([], 2, "the following arguments are required"),
        (["--sgxs", "x", "a", "b"], 2, "--sgxs is of one image or file"),
        (["dir:{empty}"], 2, "does not start a program by its path"),
    ],
    ids=lambda value: None,
)
def test_bad_input_is_one_line_with_its_exit_code(words, code, message, made, program, tmp_path):  # noqa: PLR0917
    ended = look(made, *(word.format(native=program, layout=made.layout, empty=tmp_path) for word in words))
    assert ended.code == code, ended.stderr
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_a_report_or_an_error_of_ours(data, binary):
    """Bytes of what leads to the sections, and of the sections that are parsed, are changed at random."""
    original = binary.read_bytes()
    sections = read_sconified(binary).sections
    starts = [0, sections[".sconify.config"].offset, sections[".sconify.sig"].offset, len(original) - 1500]
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.sampled_from(starts)) + data.draw(st.integers(0, 1499))
        changed[position] = data.draw(st.integers(0, 255))
    other = binary.with_name("changed")
    other.write_bytes(changed)
    try:
        report = inspect(Subject(name="x", file=other))
    except SconifyError:
        return
    assert report.problems or bytes(changed) == original or _same_content(report, binary)


def _same_content(report, binary):
    """What is unmeasured and unsigned may differ: padding between sections, names and places of sections."""
    return report.measured == inspect(Subject(name="x", file=binary)).measured
