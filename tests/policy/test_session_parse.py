"""Session texts: what is well-formed is read, what is not is refused with its line, what is not built is said."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.policy.model import AccessPolicy, SessionName, Signer, Variant
from sconify_tasks.policy.parse import check_supported, parse_session
from sconify_tasks.sgx.measurement import MrEnclave

M = "0b" * 32
GOOD = f"""\
name: ns-1/python-session
version: "0.3"
predecessor: ~
creator: whoever
access_policy: {{read: [CREATOR], update: [CREATOR]}}
services:
  - name: python
    image_name: python_image
    mrenclaves: [{M}]
    command: "python3 '/code/my app.py'"
    environment:
      SCONE_MODE: hw
      PORT: 08080
      ANSWER: yes
      EMPTY:
      QUOTED: "~"
    pwd: /
    fspf_key: {"12" * 32}
    fspf_tag: {"12e4" * 8}
    fspf_path: /fspf/fs.fspf
images:
  - name: python_image
security:
  attestation:
    tolerate: [debug-mode, debug]
    ignore_advisories: "*"
"""


def service(text):
    return f"name: s\nversion: '0.3'\nservices:\n  - name: a\n    mrenclaves: [{M}]\n{text}"


def bare(text):
    return f"name: s\nversion: '0.3'\n{text}\n"


def test_a_documented_session_is_read():
    session = parse_session(GOOD)
    assert session.name == "ns-1/python-session"
    assert session.name.namespace == "ns-1"
    python = session.service("python")
    assert python is session.services[0]
    assert python.mrenclaves == (MrEnclave(M),)
    assert python.variants == (Variant(mrenclaves=(MrEnclave(M),)),)
    assert session.security.attestation.tolerate == ("debug-mode",)
    assert session.security.attestation.ignore_advisories == ("*",)
    assert session.access_policy == AccessPolicy()
    check_supported(session)


def test_what_looks_like_a_number_stays_what_was_written():
    python = parse_session(GOOD).services[0]
    assert python.fspf_key == "12" * 32
    assert python.fspf_tag == "12e4" * 8
    assert dict(python.environment) == {"SCONE_MODE": "hw", "PORT": "08080", "ANSWER": "yes", "EMPTY": "", "QUOTED": "~"}


def test_a_namespace_is_a_session_without_services():
    session = parse_session(bare("access_policy: {read: [CREATOR], update: [CREATOR], create_sessions: ANY}"))
    assert session.access_policy.create_sessions == ("ANY",)
    assert session.services == ()


def test_what_the_access_policy_does_not_say_follows_what_it_says():
    policy = parse_session(bare("access_policy: {read: [ANY], update: [NONE]}")).access_policy
    assert (policy.list_sessions, policy.create_sessions) == (("ANY",), ("NONE",))


def test_the_newer_attestation_section_is_read():
    text = f"""\
name: s
version: 0.3.10
services:
  - name: a
    attestation:
      - mrenclave: [{M}]
      - signer: {{mrsigner: {M}, isvprodid: 6, isvsvn_min: 2}}
"""
    first, second = parse_session(text).services[0].variants
    assert first.mrenclaves == (M,)
    assert second.signer == Signer(mrsigner=MrEnclave(M), isvprodid=6, isvsvn_min=2)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("version: '0.3'\n", 1, "no 'name'"),
        ("name: s\n", 1, "no 'version'"),
        ("name: s\nversion: 0.4\n", 2, "version"),
        ("name: s\nversion: '0.1'\n", 2, "version"),
        ("name: a//b\nversion: '0.3'\n", 1, "not a session name"),
        ("name: a/../b\nversion: '0.3'\n", 1, "not a session name"),
        (bare("service: []"), 3, "did you mean 'services'?"),
        (bare("name: t"), 3, "second time"),
        (bare("predecessor: abc"), 3, "64 hex digits"),
        (bare("services: {}"), 3, "must be a list"),
        (bare("services: [{name: a}]"), 3, "anyone could be it"),
        (bare("services: [{name: a, mrenclaves: []}]"), 3, "anyone could be it"),
        (bare("services: [{name: a, attestation: []}]"), 3, "anyone could be it"),
        (bare("services: [{name: a, attestation: [{}]}]"), 3, "let anyone in"),
        (bare("services: [{name: a, attestation: [{mrenclave: []}]}]"), 3, "let anyone in"),
        (
            bare(f"services: [{{name: a, attestation: [{{mrenclave: [], signer: {{mrsigner: {M}, isvprodid: 1}}}}]}}]"),
            3,
            "let anyone in",
        ),
        (bare(f"services: [{{name: a, attestation: [{{signer: {{mrsigner: {M}}}}}]}}]"), 3, "isvprodid"),
        (
            bare(
                f"services: [{{name: a, attestation: [{{signer: {{mrsigner: {M}, isvprodid: 1, isvsvn: 1, isvsvn_min: 1}}}}]}}]"
            ),
            3,
            "excludes",
        ),
        (bare(f"services: [{{name: a, attestation: [{{signer: {{mrsigner: {M}, isvprodid: 65536}}}}]}}]"), 3, "65535"),
        (bare("services: [{name: a, mrenclaves: [abc]}]"), 3, "64 hex digits"),
        (bare(f"services: [{{name: a, mrenclaves: [{M}]}}, {{name: a, mrenclaves: [{M}]}}]"), 3, "second service"),
        (bare(f"services: [{{name: a/b, mrenclaves: [{M}]}}]"), 3, "a/b"),
        (service("    fspf_key: " + "ab" * 32), 4, "fspf_tag"),
        (service(f"    fspf_key: secret\n    fspf_tag: {'ab' * 16}\n    fspf_path: /f"), 6, "64 hex digits"),
        (service("    pwd: app"), 6, "absolute"),
        (service('    command: "a \\0"'), 6, "NUL"),
        (service('    command: "a \'b"'), 6, "split"),
        (service('    environment: {A: "\\0"}'), 6, "NUL"),
        (service('    environment: {"A=B": c}'), 6, "variable"),
        (service("    environment: {A: [b]}"), 6, "must be text"),
        (service("    enviroment: {}"), 6, "did you mean 'environment'?"),
        (service("    image_name: x"), 3, "not under images"),
        (bare("images: [{name: a}, {name: a}]"), 3, "second image"),
        (bare("volumes: [{name: a, import: {session: s, volume: v}, fspf_key: " + "ab" * 32 + "}]"), 3, "imported"),
        (bare("secrets: [{name: a, kind: hex}]"), 3, "allowed: ascii"),
        (bare("access_policy: {read: [ANY, CREATOR]}"), 3, "alone"),
        (bare("access_policy: {read: []}"), 3, "empty"),
        (bare("access_policy: {read: [creator]}"), 3, "names nobody"),
        (bare("access_policy: {read: [{signer: x}]}"), 3, "update and create_sessions"),
        (bare("access_policy: {write: [ANY]}"), 3, "write"),
        (bare("security: {attestation: {mode: off}}"), 3, "allowed: hardware"),
        (bare("security: {attestation: {tolerate: [everything]}}"), 3, "allowed: debug-mode"),
        (bare("security: {attestation: {ignore_advisories: [all]}}"), 3, "INTEL-SA"),
        (bare("security: {attestation: {ignore_advisories: ['*', INTEL-SA-00219]}}"), 3, "INTEL-SA"),
        (bare("security: {attestation: {mode: maa, url: 'https://a'}}"), 3, "maa-managed-tcb"),
        (bare("security: {attestation: {url: 'https://a'}}"), 3, "mode maa"),
        ("- a", 1, "mapping"),
        ("name: !x s\nversion: '0.3'", 1, "tag"),
    ],
)
def test_what_is_not_a_session_is_refused_with_its_line(text, line, part):
    with pytest.raises(UsageError) as caught:
        parse_session(text, name="s.yml")
    message = str(caught.value)
    assert message.startswith(f"s.yml:{line}:")
    assert part in message
    assert "\n" not in message


def test_a_key_is_not_repeated_in_an_error():
    with pytest.raises(UsageError) as caught:
        parse_session(service(f"    fspf_key: hunter2\n    fspf_tag: {'ab' * 16}\n    fspf_path: /f"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        (service("    environment: {A: x$$SCONE::s$$}"), 6, "placeholder"),
        (service("    command: a $$SCONE::s:hex$$"), 6, "placeholder"),
        (service("    command: a @@1"), 6, "host argument"),
        (service("    command: [a, '@@1']"), 6, "host argument"),
        (service(f"    fspf_key: $$SCONE::k$$\n    fspf_tag: {'ab' * 16}\n    fspf_path: /f"), 6, "placeholder"),
        (service("    fspf_update_policy: no_rollback_protection"), 6, "no_rollback_protection"),
        (service("    platforms: [INTEL_QE_ID:00]"), 6, "platforms"),
        (bare("services: [{name: a, mrenclaves: [$$SCONE::m$$]}]"), 3, "placeholder"),
        (bare("secrets: [{name: a, kind: ascii}]"), 3, "secret a"),
        (bare("volumes: [{name: a}]"), 3, "volume a"),
        (bare("images: [{name: a, volumes: [{name: v, path: /v}]}]"), 3, "volume of the image a"),
        (bare("images: [{name: a, injection_files: [/etc/x]}]"), 3, "injection file"),
        (bare("images: [{name: a, injection_files: [{path: /x, content: y, permission: 0o400}]}]"), 3, "injection file"),
        (bare("images: [{name: a, provide_secrets: [s]}]"), 3, "provide_secrets"),
        (bare("access_policy: {update: [{signer: PEM}]}"), 3, "signer"),
        (bare("access_policy: {update: [{require-at-least-2: [CREATOR, CREATOR]}]}"), 3, "require-at-least-2"),
        (bare("security: {attestation: {mode: maa, url: 'https://a', tolerate: [maa-managed-tcb]}}"), 3, "Azure"),
        (bare("security: {singleton_enclaves: true}"), 3, "singleton_enclaves"),
        (bare("salt: 00"), 3, "salt"),
        (bare("namespace_hash: 00"), 3, "namespace_hash"),
    ],
)
def test_what_is_well_formed_and_not_built_is_said_and_not_ignored(text, line, part):
    session = parse_session(text)
    with pytest.raises(UsageError) as caught:
        check_supported(session)
    assert f"line {line}:" in caught.value.message
    assert part in caught.value.message
    assert "not built yet" in caught.value.message


def test_mode_none_needs_no_measurement():
    session = parse_session(bare("services: [{name: a}]\nsecurity: {attestation: {mode: none}}"))
    assert session.services[0].variants == ()
    assert session.security.attestation.mode == "none"


@pytest.mark.parametrize("name", ["a", "a/b/c", "A-b_c.d~e", "x" * 128])
def test_session_names_are_segments_joined_by_slashes(name):
    assert SessionName(name) == name


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a/", "a//b", ".", "a/..", "a b", "a\n", "é", "x" * 129, "/".join(["x"] * 600)]
)
def test_other_names_are_no_session_names(name):
    with pytest.raises(ValueError, match="not a session name"):
        SessionName(name)


def test_a_measurement_is_lower_case_hex():
    """Upper-case digits are taken in a session, and are lower-case ones from then on."""
    text = f"name: s\nversion: '0.3'\nservices: [{{name: a, command: x, mrenclaves: [{'AB' * 32}]}}]\n"

    assert parse_session(text).services[0].mrenclaves == ("ab" * 32,)
    with pytest.raises(ValueError, match="not an MRENCLAVE"):
        MrEnclave("AB" * 32)


def test_a_text_beyond_the_bound_is_refused_unread():
    with pytest.raises(UsageError, match="larger"):
        parse_session("#" + "x" * (1 << 20))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_session_is_a_session_or_a_usage_error(data):
    cut = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(cut, min(len(GOOD), cut + 20)))
    with contextlib.suppress(UsageError):
        parse_session(GOOD[:cut] + data.draw(st.text(max_size=8)) + GOOD[end:])
