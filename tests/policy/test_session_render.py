"""Sessions as text: the documented shape, and every value comes back as it went in, for our reader and for PyYAML's."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.policy.digest import session_hash
from sconify_tasks.policy.environment import service_environment
from sconify_tasks.policy.mask import mask
from sconify_tasks.policy.model import (
    TOLERATIONS,
    AccessPolicy,
    Attestation,
    MrEnclave,
    Security,
    Service,
    Session,
    SessionName,
    Signer,
    Variant,
)
from sconify_tasks.policy.parse import parse_session
from sconify_tasks.policy.render import SessionParameters, namespace, render, with_predecessor
from sconify_tasks.policy.template import render_template
from sconify_tasks.policy.yaml_text import dump
from sconify_tasks.yaml_nodes import load

M = MrEnclave("ab" * 32)
FSPF = {"fspf_key": "cd" * 32, "fspf_tag": "ef" * 16, "fspf_path": "/fspf/fs.fspf"}


def parameters(**more):
    found = {
        "name": SessionName("ns-1/python-session"),
        "service": "python-service",
        "mrenclaves": (M,),
        "command": ("python3", "/code/app.py"),
        "environment": service_environment(["PATH=/usr/bin:/bin", "A=no"]),
    }
    return SessionParameters(**{**found, **more})


def test_the_text_has_the_documented_shape():
    text = render(parameters(**FSPF, allow_tcb_vulnerabilities=True, allow_debug_mode=True))
    assert (
        text
        == f"""\
name: ns-1/python-session
version: "0.3"
access_policy:
  read: [CREATOR]
  update: [CREATOR]
services:
  - name: python-service
    image_name: python-service_image
    mrenclaves: [{M}]
    command: "python3 /code/app.py"
    environment:
      SCONE_MODE: hw
      LD_LIBRARY_PATH: "/lib:/usr/lib:/usr/local/lib:"
      PATH: "/usr/bin:/bin"
      A: "no"
    pwd: /
    fspf_key: {"cd" * 32}
    fspf_tag: {"ef" * 16}
    fspf_path: /fspf/fs.fspf
images:
  - name: python-service_image
security:
  attestation:
    tolerate: [hyperthreading, insecure-igpu, outdated-tcb, software-hardening-needed, insecure-configuration, debug-mode]
    ignore_advisories: "*"
"""
    )


def test_a_session_without_attestation_says_so_and_names_no_measurement():
    session = parse_session(render(parameters(attested=False)))
    assert session.security.attestation.mode == "none"
    assert session.services[0].variants == ()


def test_a_session_that_should_be_attested_is_never_written_without_a_measurement():
    with pytest.raises(UsageError, match="no measurement"):
        render(parameters(mrenclaves=()))


def test_nothing_is_tolerated_unless_it_was_asked_for():
    assert parse_session(render(parameters())).security == Security()


def test_a_namespace_lets_its_creator_create_sessions():
    text = render(namespace(SessionName("ns-1")))
    assert yaml.safe_load(text) == {
        "name": "ns-1",
        "version": "0.3",
        "access_policy": {"read": ["CREATOR"], "update": ["CREATOR"], "create_sessions": ["CREATOR"]},
    }


hexes = st.binary(min_size=32, max_size=32).map(bytes.hex)
names = st.from_regex(r"[A-Za-z0-9_\-.~]{1,12}", fullmatch=True).filter(lambda name: name not in {".", ".."})
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).filter(
    lambda text: "$$SCONE::" not in text
)
awkward = st.sampled_from(
    [
        "yes",
        "~",
        "",
        " ",
        "null",
        "1e5",
        "0x1",
        "a: b",
        "a #b",
        "- a",
        "\u2028",
        "\ufeff",
        "\x85",
        "\x7f",
        "\n",
        "é😀",
        "1:20",
        "{}",
        "*a",
        "!b",
        "'",
        '"',
        "\\",
        "%",
        "@",
        "`",
        "2025-01-01",
        "=",
        "<<",
        "\uffff",
        "k" * 3000,
    ]
)
values = texts | awkward
variables = values.filter(lambda name: name and "=" not in name)
measurements = st.lists(hexes.map(MrEnclave), max_size=2, unique=True).map(tuple)
signers = st.builds(
    Signer, mrsigner=hexes.map(MrEnclave), isvprodid=st.integers(0, 65535), isvsvn=st.none() | st.integers(0, 65535)
)
variants = st.builds(Variant, mrenclaves=measurements, signer=st.none() | signers).filter(lambda v: v.mrenclaves or v.signer)
absolute = values.map(lambda text: "/" + text)


@st.composite
def services(draw, name):
    protected = (
        {"fspf_key": draw(hexes), "fspf_tag": draw(hexes)[:32], "fspf_path": draw(absolute)} if draw(st.booleans()) else {}
    )
    words = st.lists(values.filter(lambda word: "@@" not in word and "\\@" not in word), max_size=3).map(tuple)
    return Service(
        name=name,
        mrenclaves=draw(st.lists(hexes.map(MrEnclave), min_size=1, max_size=2).map(tuple)),
        attestation=tuple(draw(st.lists(variants, max_size=2))),
        command=draw(words | st.sampled_from(["", "a 'b c'", "x\ty"])),
        environment=draw(st.dictionaries(variables, values, max_size=4)),
        pwd=draw(st.just("") | absolute),
        **protected,
    )


@st.composite
def sessions(draw):
    unique = draw(st.lists(names, max_size=2, unique=True))
    members = st.sampled_from([("CREATOR",), ("ANY",), ("NONE",), ("CREATOR", "ab" * 32), ("7" * 44,)])
    attestation = Attestation(
        tolerate=tuple(draw(st.lists(st.sampled_from(TOLERATIONS), max_size=3, unique=True))),
        ignore_advisories=draw(st.sampled_from([(), ("*",), ("INTEL-SA-00219", "INTEL-SA-00289")])),
    )
    return Session(
        name=SessionName("/".join(draw(st.lists(names, min_size=1, max_size=3)))),
        predecessor=draw(st.just("") | hexes),
        services=tuple(draw(services(name)) for name in unique),
        access_policy=AccessPolicy(**{key: draw(members) for key in ("read", "update", "create_sessions", "list_sessions")}),
        security=Security(attestation=attestation),
        images=tuple({"name": name} for name in draw(st.lists(names, max_size=2, unique=True))),
    )


@settings(max_examples=80, deadline=None)
@given(sessions())
def test_a_session_written_and_read_is_the_same_session(session):
    text = render(session)
    assert parse_session(text) == session
    assert parse_session(with_predecessor(text, "ab" * 32)).predecessor == "ab" * 32
    assert parse_session(with_predecessor(text, session.predecessor)) == session
    assert load(mask(text), name="masked").mapping("a session").keys() == load(text, name="text").mapping("a session").keys()


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(values, values | st.lists(values) | st.lists(st.dictionaries(values, values, max_size=2), max_size=3)))
def test_text_is_what_a_yaml_1_1_reader_takes_it_for(value):
    assert yaml.safe_load(dump(value)) == value


def test_a_value_that_is_not_unicode_is_a_clear_error():
    with pytest.raises(UsageError, match="UTF-8"):
        render(parameters(environment={"A": "\udc80"}))


def test_the_hash_is_of_what_the_session_says():
    text = render(parameters(**FSPF))
    same = [
        "# a comment\n" + text,
        text.replace("SCONE_MODE: hw", 'SCONE_MODE: "hw"'),
        "creator: me\n" + text,
        with_predecessor(text, "ab" * 32),
        "\n".join([*text.splitlines()[1:], text.splitlines()[0]]),
    ]
    assert {session_hash(other) for other in same} == {session_hash(text)}
    different = [
        text.replace("cdcd", "cdce", 1),
        text.replace('"no"', "~"),
        text.replace("ns-1", "ns-2"),
        text + "volumes: []\n",
        text.replace("/usr/bin:/bin", "/bin:/usr/bin"),
    ]
    assert session_hash(text) not in {session_hash(other) for other in different}
    assert len({session_hash(other) for other in different}) == len(different)


def test_numbers_that_are_written_differently_hash_differently():
    text = render(parameters(environment={"PORT": "8080"}))
    assert session_hash(text) != session_hash(text.replace('"8080"', "08080"))


def test_the_hash_of_a_session_stays_what_it_is():
    text = "name: ns/s\nversion: '0.3'\nservices: []\n"
    assert session_hash(text) == "4807b69462157b7646da1e3cbc176fb641de1563861485f498f62eb30e49a058"


def test_masking_leaves_no_key_no_environment_value_and_no_secret():
    text = render(parameters(**FSPF, environment={"TOKEN": "hunter2"})) + (
        "secrets: [{name: a, kind: binary, value: hunter3, future: hunter4, import_akv: {token: hunter5}}, hunter6]\n"
        "volumes: [{name: v, fspf_key: hunter7}]\n"
    )
    text = text.replace(
        "- name: python-service_image", "- name: python-service_image\n    injection_files: [{path: /x, content: hunter8}]"
    )
    shown = mask(text)
    assert "hunter" not in shown
    assert FSPF["fspf_key"] not in shown
    assert "TOKEN" in shown
    assert M in shown
    assert 'command: "python3 (masked)"' in shown


def test_what_can_not_be_read_is_not_shown():
    with pytest.raises(UsageError):
        mask("fspf_key: [secret")


TEMPLATE = """\
name: $SESSION
version: "0.3"
services:
  - name: ${SERVICE}
    mrenclaves: [$MRENCLAVE]
    command: $COMMAND --price '$$5'
    environment: $ENVIRONMENT
    pwd: $PWD
    fspf_key: $FSPF_KEY
    fspf_tag: $FSPF_TAG
    fspf_path: $FSPF_PATH
security: $SECURITY
"""


def test_a_template_is_filled_in():
    hostile = {"A": 'x"\n    pwd: /evil', "B": "$SERVICE", "C": "yes"}
    session = parse_session(
        render_template(TEMPLATE, parameters(**FSPF, environment=hostile, allow_debug_mode=True), name="t.yml")
    )
    service = session.services[0]
    assert session.name == "ns-1/python-session"
    assert service.command == "python3 /code/app.py --price '$5'"
    assert service.environment == {"SCONE_MODE": "hw", **hostile}
    assert service.pwd == "/"
    assert service.fspf_key == FSPF["fspf_key"]
    assert session.security.attestation.tolerate == ("debug-mode",)


@pytest.mark.parametrize(
    ("template", "where", "part"),
    [
        (TEMPLATE, "t.yml:9:", "$FSPF_KEY has no value"),
        (TEMPLATE.replace("$PWD", "$PDW"), "t.yml:8:", "did you mean 'PWD'?"),
        (TEMPLATE.replace("$PWD", "/x$ENVIRONMENT"), "t.yml:8:", "mapping"),
        ("name: $SESSION\n", "the session from t.yml:1:", "version"),
        ("name: [", "t.yml:2:", "not YAML"),
    ],
)
def test_what_a_template_lacks_is_named_with_its_line(template, where, part):
    with pytest.raises(UsageError) as caught:
        render_template(template, parameters(), name="t.yml")
    assert str(caught.value).startswith(where)
    assert part in str(caught.value)


def test_placeholders_of_the_cas_pass_through_a_template():
    template = "name: $SESSION\nversion: '0.3'\nservices: [{name: a, mrenclaves: [$MRENCLAVE], environment: {A: 'x$$SCONE::s:hex$$'}}]\n"
    session = parse_session(render_template(template, parameters(), name="t.yml"))
    assert session.services[0].environment["A"] == "x$$SCONE::s:hex$$"
