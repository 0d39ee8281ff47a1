"""The rules of the CAS, without a network: who may store, who may read, which enclave gets what."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from cas.cas_support import MRENCLAVE, las_request, session_text
from quotes.quote_support import DEBUG_FLAGS, NOW, PRODUCTION_FLAGS, report, with_level

from sconify_tasks.cas.embedded import EmbeddedCas, embedded_pin, open_embedded
from sconify_tasks.cas.errors import AccessDeniedError, SessionNotFoundError
from sconify_tasks.cas.frames import RefusedError
from sconify_tasks.cas.identity import new_identity
from sconify_tasks.cas.interface import put_session
from sconify_tasks.cas.las import answer_quote
from sconify_tasks.cas.service import channel_report_data
from sconify_tasks.errors import PolicyConflictError, StoreError, UsageError
from sconify_tasks.policy.render import with_predecessor
from sconify_tasks.sgx.platform import new_platform

OWNER, OTHER = "aa" * 32, "bb" * 32
EXPORTER = b"\x42" * 32


@pytest.fixture
def service(tmp_path):
    opened = open_embedded(tmp_path, now=lambda: NOW)
    opened.create_namespace("ns", OWNER)
    return opened


@pytest.fixture
def cas(service):
    return EmbeddedCas(service=service, client=OWNER)


@pytest.fixture
def other(service):
    return EmbeddedCas(service=service, client=OTHER)


def quote_for(platform, exporter=EXPORTER, mrenclave=MRENCLAVE):
    request = las_request(channel_report_data(exporter), mrenclave=mrenclave)
    del request["v"]
    return base64.b64decode(answer_quote(platform, request)["quote"])


def refused(service, quote, config_id="ns/app/web", exporter=EXPORTER):
    with pytest.raises(RefusedError) as caught:
        service.service_config(config_id, quote, exporter)
    return caught.value


def test_a_session_comes_back_as_it_was_stored(cas):
    digest = cas.create_session(session_text())
    found = cas.read_session("ns/app")
    assert (found.text, found.hash) == (session_text(), digest)


def test_the_state_folder_is_a_cas_that_stays_the_same(tmp_path, service, cas):
    digest = cas.create_session(session_text())
    again = open_embedded(tmp_path, now=lambda: NOW)
    assert again.spki_hash == service.spki_hash == embedded_pin(tmp_path)
    assert again.read_session("ns/app", OWNER).hash == digest


def test_there_is_no_pin_before_there_is_a_cas(tmp_path):
    assert embedded_pin(tmp_path / "nothing") is None
    assert not (tmp_path / "nothing").exists()


def test_without_the_sealing_key_an_existing_database_is_not_given_a_new_one(tmp_path, cas):
    cas.create_session(session_text())
    (tmp_path / "cas" / "store.key").unlink()
    with pytest.raises(StoreError, match=r"store\.key is missing"):
        open_embedded(tmp_path)
    assert not (tmp_path / "cas" / "store.key").exists()


def test_a_damaged_identity_key_is_never_replaced(tmp_path, service):
    path = tmp_path / "cas" / "identity.pem"
    public_of_another = open_embedded(tmp_path / "b").key.key.public_key()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    own = path.read_bytes()
    forged = own[: own.index(b"-----BEGIN PUBLIC")] + public_of_another.public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    for content in (b"", b"garbage", forged):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"identity\.pem is not the key"):
            open_embedded(tmp_path)
        assert path.read_bytes() == content


def test_a_namespace_must_exist_and_let_one_in(cas, other):
    with pytest.raises(PolicyConflictError, match="namespace nowhere does not exist"):
        cas.create_session(session_text("nowhere/app"))
    with pytest.raises(AccessDeniedError, match="create sessions in namespace ns"):
        other.create_session(session_text("ns/app"))
    with pytest.raises(AccessDeniedError):
        other.create_namespace("ns")
    assert cas.create_namespace("ns") == cas.create_namespace("ns")
    cas.create_namespace("ns/inner")
    cas.create_session(session_text("ns/inner/app"))


def test_many_may_ask_for_one_namespace_at_once(service):
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    together = Barrier(8)

    def create(number):
        together.wait()
        return service.create_namespace(f"shared-{number // 8}", OWNER)

    with ThreadPoolExecutor(8) as threads:
        hashes = list(threads.map(create, range(64)))
    assert len(set(hashes)) == 8


def test_a_session_with_services_is_no_namespace_and_never_becomes_one(cas):
    digest = cas.create_session(session_text("ns/app"))
    with pytest.raises(PolicyConflictError, match="not a namespace"):
        cas.create_session(session_text("ns/app/inner"))
    with pytest.raises(PolicyConflictError, match="not a namespace"):
        cas.create_namespace("ns/app")
    with pytest.raises(PolicyConflictError, match="can't change"):
        cas.update_session(f'name: ns/app\nversion: "0.3"\npredecessor: {digest}\n')


def test_an_update_names_the_newest_version_or_is_a_conflict(cas):
    first = cas.create_session(session_text(env="one"))
    second = cas.update_session(session_text(env="two", predecessor=first))
    for text in (session_text(env="three", predecessor=first), session_text(env="three", predecessor="00" * 32)):
        with pytest.raises(PolicyConflictError, match="has moved on"):
            cas.update_session(text)
    with pytest.raises(PolicyConflictError, match="exists already"):
        cas.create_session(session_text(env="three"))
    with pytest.raises(UsageError, match="names its predecessor"):
        cas.update_session(session_text(env="three"))
    assert cas.read_session("ns/app").hash == second
    assert "one" in cas.read_session("ns/app", first).text
    with pytest.raises(SessionNotFoundError, match="no version"):
        cas.read_session("ns/app", "00" * 32)


def test_a_first_version_has_no_predecessor(cas):
    with pytest.raises(PolicyConflictError, match="no version of it"):
        cas.create_session(session_text(predecessor="00" * 32))


def test_another_identity_neither_reads_nor_updates(cas, other):
    digest = cas.create_session(session_text())
    with pytest.raises(AccessDeniedError, match="read session ns/app"):
        other.read_session("ns/app")
    with pytest.raises(AccessDeniedError, match="update session ns/app"):
        other.update_session(session_text(env="theirs", predecessor=digest))
    with pytest.raises(SessionNotFoundError):
        other.read_session("ns/unknown")


@pytest.mark.parametrize(
    ("read", "owner_reads", "other_reads"),
    [
        ("[CREATOR]", True, False),
        ("[ANY]", True, True),
        ("[NONE]", False, False),
        (f"[{OTHER}]", False, True),
        (f"[CREATOR, {OTHER}]", True, True),
    ],
)
def test_the_access_policy_decides_who_reads(cas, other, read, owner_reads, other_reads):
    cas.create_session(session_text(access=f"{{read: {read}, update: [CREATOR]}}"))
    for who, allowed in ((cas, owner_reads), (other, other_reads)):
        if allowed:
            who.read_session("ns/app")
        else:
            with pytest.raises(AccessDeniedError):
                who.read_session("ns/app")


def test_a_certificate_in_the_policy_means_its_key(service, cas):
    friend = new_identity()
    certificate = "-----BEGIN CERTIFICATE" + friend.pem.split("-----BEGIN CERTIFICATE")[1]
    cas.create_session(session_text(access=f"{{read: [{json.dumps(certificate)}], update: [CREATOR]}}"))
    assert service.read_session("ns/app", friend.spki_hash).name == "ns/app"
    with pytest.raises(AccessDeniedError):
        cas.read_session("ns/app")
    with pytest.raises(UsageError, match="certificate can't be read"):
        cas.create_session(session_text("ns/b", access=f"{{read: [{json.dumps(certificate.replace('M', 'N'))}]}}"))


def test_the_newest_versions_policy_also_guards_the_old_ones(cas, other):
    first = cas.create_session(session_text(access="{read: [ANY], update: [CREATOR]}"))
    other.read_session("ns/app", first)
    cas.update_session(session_text(access="{read: [CREATOR], update: [CREATOR]}", predecessor=first))
    with pytest.raises(AccessDeniedError):
        other.read_session("ns/app", first)


def test_who_may_update_does_not_become_the_creator(cas, other):
    first = cas.create_session(session_text(access=f"{{read: [CREATOR], update: [CREATOR, {OTHER}]}}"))
    other.update_session(session_text(env="theirs", predecessor=first))
    with pytest.raises(AccessDeniedError):
        other.read_session("ns/app")
    assert "theirs" in cas.read_session("ns/app").text


@pytest.mark.parametrize(
    "access", ["{read: [$$SCONE::s$$]}", "{update: [{signer: x}]}", "{read: [4wBqpZM9xaSheZzJSMawUHDgZ7miWfSsxmDxDxFAYRf5]}"]
)
def test_policies_that_nobody_could_be_matched_against_are_refused_at_upload(cas, access):
    with pytest.raises(UsageError, match="not built yet"):
        cas.create_session(session_text(access=access))


@pytest.mark.parametrize("text", ["", "a: [", "name: x", "\x00", "&a [*a]", "name: ../../etc\nversion: '0.3'", "[" * 5000])
def test_texts_that_are_no_session_are_usage_errors(cas, text):
    with pytest.raises(UsageError):
        cas.create_session(text)


def test_put_session_creates_updates_and_leaves_alone(cas):
    first = put_session(cas, session_text(env="one"), update_if_exists=False)
    assert put_session(cas, "# other comment\n" + session_text(env="one"), update_if_exists=False) == first
    with pytest.raises(PolicyConflictError, match="different session ns/app"):
        put_session(cas, session_text(env="two"), update_if_exists=False)
    second = put_session(cas, session_text(env="two"), update_if_exists=True)
    third = put_session(cas, with_predecessor(session_text(env="three"), first), update_if_exists=True)
    assert cas.read_session("ns/app").hash == third
    assert cas.read_session("ns/app", second).hash == second
    assert put_session(cas, session_text(env="one"), update_if_exists=True) == first
    assert "one" in cas.read_session("ns/app").text


def test_an_enclave_gets_exactly_its_service(service, cas):
    digest = cas.create_session(session_text())
    assert service.service_config("ns/app/web", quote_for(service.platform), EXPORTER) == {
        "session": {"name": "ns/app", "hash": digest},
        "service": {
            "command": ["python3", "/app/main.py", "two words"],
            "environment": {"VALUE": "one"},
            "pwd": "/app",
            "fspf_path": "/fspf/fs.fspf",
            "fspf_key": "01" * 32,
            "fspf_tag": "02" * 16,
        },
    }


def test_an_enclave_gets_the_newest_version_only(service, cas):
    first = cas.create_session(session_text(env="one"))
    cas.update_session(session_text(env="two", predecessor=first))
    assert service.service_config("ns/app/web", quote_for(service.platform), EXPORTER)["service"]["environment"] == {
        "VALUE": "two"
    }


def test_another_measurement_is_refused_and_both_are_named(service, cas):
    cas.create_session(session_text())
    error = refused(service, quote_for(service.platform, mrenclave="cd" * 32))
    assert error.code == "unexpected-measurement"
    assert "cd" * 32 in error.message
    assert MRENCLAVE in error.message


def test_debug_is_refused_where_the_session_does_not_tolerate_it(service, cas):
    cas.create_session(session_text(tolerate="[]"))
    error = refused(service, quote_for(service.platform))
    assert error.code == "debug-not-tolerated"
    assert "SIMULATED" in error.message
    assert "--allow-debug-mode" in error.hint


def test_a_production_looking_quote_of_a_simulated_platform_counts_as_debug(service, cas):
    cas.create_session(session_text(tolerate="[]"))
    body = report(PRODUCTION_FLAGS, mr_enclave=bytes.fromhex(MRENCLAVE), report_data=channel_report_data(EXPORTER))
    assert refused(service, service.platform.quote(body)).code == "debug-not-tolerated"


def test_a_quote_for_another_channel_is_refused(service, cas):
    cas.create_session(session_text())
    assert refused(service, quote_for(service.platform, exporter=b"\x43" * 32)).code == "channel-binding"


def test_a_strangers_quote_is_refused(service, cas):
    cas.create_session(session_text())
    assert refused(service, quote_for(new_platform(NOW))).code == "bad-quote"


@pytest.mark.parametrize("quote", [b"", b"\0" * 2000])
def test_what_is_no_quote_is_refused(service, cas, quote):
    cas.create_session(session_text())
    assert refused(service, quote).code == "bad-quote"


def test_no_quote_is_refused_unless_the_mode_is_none(service, cas):
    cas.create_session(session_text())
    assert refused(service, None).code == "quote-required"
    cas.create_session(session_text("ns/open", mode="none", tolerate="[]"))
    assert service.service_config("ns/open/web", None, EXPORTER)["service"]["pwd"] == "/app"


@pytest.mark.parametrize(
    ("config_id", "code"),
    [
        ("ns/app/other", "unknown-service"),
        ("ns/web", "unknown-service"),
        ("ns/nothing/web", "unknown-session"),
        ("web", "unknown-session"),
        ("", "unknown-session"),
        ("/", "unknown-session"),
        ("ns//web", "unknown-session"),
        ("../ns/app/web", "unknown-session"),
        ("ns/app/web@123456", "unknown-service"),
        ("\x1b" * 5000 + "/web", "unknown-session"),
    ],
)
def test_unknown_sessions_and_services_have_their_own_codes(service, cas, config_id, code):
    cas.create_session(session_text())
    error = refused(service, quote_for(service.platform), config_id)
    assert error.code == code
    assert len(error.message) < 1000


def test_a_service_may_be_known_by_its_signer(service, cas):
    text = session_text().replace(
        f"mrenclaves: [{MRENCLAVE}]",
        f"attestation: [{{signer: {{mrsigner: {'bb' * 32}, isvprodid: 3, isvsvn_min: 2, isvsvn_max: 4}}}}]",
    )
    cas.create_session(text)

    def ask(prod_id, svn, signer=b"\xbb" * 32):
        body = report(mr_signer=signer, isv_prod_id=prod_id, isv_svn=svn, report_data=channel_report_data(EXPORTER))
        return service.service_config("ns/app/web", service.platform.quote(body), EXPORTER)

    assert ask(3, 2) == ask(3, 4)
    for wrong in ((4, 2), (3, 1), (3, 5), (3, 2, b"\xbc" * 32)):
        with pytest.raises(RefusedError, match="expected an enclave of signer"):
            ask(*wrong)


def test_the_tcb_of_an_added_platform_is_judged_by_the_sessions_tolerations(tmp_path):
    node = new_platform(NOW)
    bundle = with_level(node, node.collateral(NOW), "OutOfDate")
    service = open_embedded(tmp_path, roots=(node.root_der,), bundles=(bundle,), now=lambda: NOW)
    service.create_namespace("ns", OWNER)
    first = service.create_session(session_text(), OWNER)
    assert refused(service, quote_for(node)).code == "tcb-not-tolerated"
    service.update_session(session_text(tolerate="[debug-mode, outdated-tcb]", predecessor=first), OWNER)
    service.service_config("ns/app/web", quote_for(node), EXPORTER)


def test_an_added_root_without_collateral_is_refused_with_the_option_to_use(tmp_path):
    node = new_platform(NOW)
    service = open_embedded(tmp_path, roots=(node.root_der,), now=lambda: NOW)
    service.create_namespace("ns", OWNER)
    service.create_session(session_text(), OWNER)
    error = refused(service, quote_for(node))
    assert error.code == "bad-quote"
    assert "--add-collateral" in error.hint


def test_a_cas_that_runs_for_a_year_still_verifies(tmp_path):
    moment = [NOW]
    service = open_embedded(tmp_path, now=lambda: moment[0])
    service.create_namespace("ns", OWNER)
    service.create_session(session_text(), OWNER)
    for days in (0, 1, 40, 365):
        moment[0] = NOW + timedelta(days=days)
        service.service_config("ns/app/web", quote_for(service.platform), EXPORTER)


def test_all_64_bytes_of_the_report_data_are_compared(service, cas):
    cas.create_session(session_text())
    body = report(DEBUG_FLAGS, mr_enclave=bytes.fromhex(MRENCLAVE), report_data=channel_report_data(EXPORTER)[:32] + b"\1" * 32)
    assert refused(service, service.platform.quote(body)).code == "channel-binding"
