"""The server as its peers see it: real TLS on loopback, friendly and hostile."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from cas.cas_support import (
    MRENCLAVE,
    Enclave,
    environment,
    las_request,
    raw_tls,
    receive_frame,
    send_frame,
    session_text,
    start_server,
)
from OpenSSL import SSL
from quotes.quote_support import NOW

from sconify_tasks.cas.client import CasClient, split_address
from sconify_tasks.cas.embedded import open_embedded
from sconify_tasks.cas.errors import AccessDeniedError, SessionNotFoundError
from sconify_tasks.cas.identity import new_identity
from sconify_tasks.cas.interface import put_session
from sconify_tasks.errors import PolicyConflictError, UnavailableError, UsageError, VerificationError
from sconify_tasks.sgx.platform import new_platform


@pytest.fixture(scope="module")
def owner(server):
    client = server.client()
    client.create_namespace("ns")
    client.create_session(session_text())
    return client


@pytest.fixture
def enclave(server, owner):
    connected = Enclave(server)
    yield connected
    connected.close()


def root_of(server):
    return open_embedded(server.state).platform.root_der


# --- clients ---------------------------------------------------------------------------------------------------------


def test_a_client_stores_and_reads_back(owner):
    found = owner.read_session("ns/app")
    assert found.text == session_text()
    assert owner.read_session("ns/app", found.hash) == found
    assert put_session(owner, session_text(), update_if_exists=False) == found.hash


def test_refusals_keep_their_kind_over_the_network(server, owner):
    stranger = server.client()
    with pytest.raises(AccessDeniedError, match="read session ns/app"):
        stranger.read_session("ns/app")
    with pytest.raises(SessionNotFoundError, match="no session nothing"):
        owner.read_session("nothing")
    with pytest.raises(PolicyConflictError, match="exists already"):
        owner.create_session(session_text())
    with pytest.raises(PolicyConflictError, match="has moved on"):
        owner.update_session(session_text(predecessor="00" * 32))
    with pytest.raises(UsageError, match="not YAML"):
        owner.create_session("a: [")
    with pytest.raises(UsageError, match="larger than"):
        owner.create_session("x" * (1 << 20) + "y")
    with pytest.raises(SessionNotFoundError):
        owner.read_session("ns/app", "x&y=?/..")
    with pytest.raises(UsageError, match="not a session name"):
        owner.read_session("../../etc/passwd\r\nX: y")


def test_a_wrong_pin_stops_the_client_before_it_sends_anything(server):
    client = CasClient(server.address, new_identity(), "00" * 32)
    with pytest.raises(VerificationError, match=f"got {server.spki}, expected {'00' * 32}"):
        client.create_namespace("never")
    with pytest.raises(SessionNotFoundError):
        server.client().read_session("never")


@pytest.mark.parametrize("pin", ["", "00" * 31, "zz" * 32, "AA" * 32])
def test_a_pin_that_could_never_match_is_a_usage_error(server, pin):
    with pytest.raises(UsageError, match="not the key of a CAS"):
        CasClient(server.address, new_identity(), pin)


def test_without_pin_or_attestation_nothing_is_uploaded(server):
    client = CasClient(server.address, new_identity())
    with pytest.raises(VerificationError, match="has not been attested"):
        client.create_namespace("unattested")
    with pytest.raises(VerificationError, match="has not been attested"):
        _ = client.spki_hash
    client.unattested = True
    client.create_namespace("unattested")
    assert client.spki_hash == server.spki


def test_a_client_attests_the_cas_and_pins_its_key(server):
    client = CasClient(server.address, new_identity())
    assert client.attest((root_of(server),), now=datetime.now(UTC), allow_debug=True) == server.spki == client.spki_hash
    client.create_namespace("attested")


@pytest.mark.parametrize("case", ["debug not tolerated", "another root", "in a hundred years"])
def test_a_cas_that_does_not_attest_is_not_pinned(server, case):
    client = CasClient(server.address, new_identity())
    roots = (new_platform(NOW).root_der,) if case == "another root" else (root_of(server),)
    now = datetime(2126, 1, 1, tzinfo=UTC) if case == "in a hundred years" else datetime.now(UTC)
    with pytest.raises(VerificationError, match="is not attested"):
        client.attest(roots, now=now, allow_debug=case != "debug not tolerated")
    with pytest.raises(VerificationError, match="has not been attested"):
        client.create_namespace("never")


def test_nobody_there_is_an_error_with_the_address():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(UnavailableError, match=f"CAS {address} does not answer") as refused:
        CasClient(address, new_identity(), "00" * 32).read_session("a")
    assert refused.value.exit_code == 3


def test_a_listener_that_speaks_no_tls_is_an_error_with_the_address():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        threading.Thread(target=lambda: deaf.accept()[0].sendall(b"SSH-2.0-nothing\r\n"), daemon=True).start()
        with pytest.raises(UnavailableError, match=f"CAS {address} does not answer"):
            CasClient(address, new_identity(), "00" * 32, timeout=5).read_session("a")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("cas", ("cas", 8081)),
        ("cas:1", ("cas", 1)),
        ("[::1]", ("::1", 8081)),
        ("[::1]:9", ("::1", 9)),
        ("::1", ("::1", 8081)),
    ],
)
def test_addresses_are_taken_apart(address, expected):
    assert split_address(address) == expected


@pytest.mark.parametrize("address", ["", ":8081", "cas:0", "cas:65536", "cas:x", "cas:-1"])
def test_what_is_no_address_is_a_usage_error(address):
    with pytest.raises(UsageError, match="not an address"):
        split_address(address)


# --- the API's edges -------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(server, owner, tmp_path):
    connected = raw_tls(server.ports["api"], owner.identity, tmp_path)
    yield connected
    connected.close()


def reply(peer):
    response = http.client.HTTPResponse(peer)
    response.begin()
    return response.status, json.loads(response.read())


def hung_up(peer):
    """Whether the other end closes within the socket's timeout."""
    try:
        while peer.recv(65536):
            pass
    except (ConnectionError, ssl.SSLEOFError):
        pass
    return True


def test_a_client_without_a_certificate_gets_nowhere(server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", server.ports["api"]), timeout=10) as plain, pytest.raises(OSError):  # noqa: PT011, PT012
        secured = context.wrap_socket(plain)
        secured.sendall(b"GET /v1/version HTTP/1.1\r\n\r\n")
        assert secured.recv(1) == b"never"


@pytest.mark.parametrize("port", ["api", "enclave"])
def test_tls_before_1_3_is_refused(server, port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", server.ports[port]), timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


def test_no_connection_resumes_another(server, owner, tmp_path):
    first = raw_tls(server.ports["api"], owner.identity, tmp_path)
    first.sendall(b"GET /v1/version HTTP/1.1\r\n\r\n")
    assert reply(first)[0] == 200
    session = first.session
    first.close()
    second = first.context.wrap_socket(socket.create_connection(("127.0.0.1", server.ports["api"])), session=session)
    assert not second.session_reused
    second.close()


def test_headers_never_say_who_somebody_is(server, owner, tmp_path):
    stranger = raw_tls(server.ports["api"], new_identity(), tmp_path)
    claims = "".join(
        f"{name}: {owner.identity.spki_hash}\r\n"
        for name in ("X-TLS-Client-ID", "X_TLS_Client_ID", "X-Client-Cert", "X-Forwarded-For", "Forwarded", "Authorization")
    )
    stranger.sendall(f"GET /v1/sessions/ns/app HTTP/1.1\r\n{claims}\r\n".encode())
    assert reply(stranger)[0] == 403
    stranger.close()


def test_several_requests_on_one_connection_are_answered_in_order(raw):
    raw.sendall(b"GET /v1/version HTTP/1.1\r\n\r\nGET /v1/sessions/ns/app HTTP/1.1\r\n\r\nPUT /v1/version HTTP/1.1\r\n\r\n")
    assert [reply(raw)[0] for _ in range(3)] == [200, 200, 405]


def test_a_declared_body_over_the_limit_is_answered_413_unread(raw):
    raw.sendall(b"POST /v1/sessions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
    assert reply(raw)[0] == 413
    assert hung_up(raw)


def test_a_chunked_body_over_the_limit_is_answered_413(raw):
    raw.sendall(b"POST /v1/sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(17):
        raw.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert reply(raw)[0] == 413
    assert hung_up(raw)


MALFORMED = {
    "long header": b"GET /v1/version HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
    "many headers": b"GET /v1/version HTTP/1.1\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    "long line": b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
    "no line": b"x" * 40_000,
    "nonsense": b"\r\n\r\nnonsense\r\n\r\n",
    "two lengths": b"POST /v1/sessions HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "negative length": b"POST /v1/sessions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "bad chunk": b"POST /v1/sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
}


def test_malformed_requests_are_answered_400_and_end_the_connection(server, owner, tmp_path):
    peers = {name: raw_tls(server.ports["api"], owner.identity, tmp_path) for name in MALFORMED}
    for name, peer in peers.items():
        peer.sendall(MALFORMED[name])
    statuses = {name: reply(peer)[0] for name, peer in peers.items()}
    assert statuses == dict.fromkeys(MALFORMED, 400)
    for peer in peers.values():
        assert hung_up(peer)
        peer.close()


def test_an_empty_and_a_binary_session_are_refused(raw):
    for body in (b"", b"\xff\x00\xfe"):
        raw.sendall(f"POST /v1/sessions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        assert reply(raw)[0] == 400


def test_a_form_is_a_body_like_any_other(raw):
    body = session_text().encode()
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n"
    raw.sendall(b"POST /v1/sessions HTTP/1.1\r\n" + kind + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert reply(raw)[0] == 409


# --- enclaves and the LAS --------------------------------------------------------------------------------------------


def test_an_enclave_attests_and_gets_its_configuration(enclave, owner):
    answer = enclave.ask("ns/app/web", enclave.quote())
    assert answer["v"] == 1
    assert answer["session"] == {"name": "ns/app", "hash": owner.read_session("ns/app").hash}
    assert answer["service"]["command"] == ["python3", "/app/main.py", "two words"]
    assert answer["service"]["fspf_key"] == "01" * 32


def test_a_quote_replayed_on_another_channel_is_refused(server, enclave):
    quote = enclave.quote()
    enclave.ask("ns/app/web", quote)
    thief = Enclave(server)
    assert thief.ask("ns/app/web", quote)["error"]["code"] == "channel-binding"
    thief.close()


def test_refusals_reach_the_enclave_with_code_and_text(enclave):
    error = enclave.ask("ns/app/web", enclave.quote(mrenclave="cd" * 32))["error"]
    assert error["code"] == "unexpected-measurement"
    assert MRENCLAVE in error["message"]
    assert enclave.ask("ns/app/web", None)["error"]["code"] == "quote-required"
    assert enclave.ask("ns/none/web", None)["error"]["code"] == "unknown-session"
    assert "error" not in enclave.ask("ns/app/web", enclave.quote())  # the connection is still good


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "bad-request"),
        (b"\xff\xff", "bad-request"),
        (b'{"v":1,"type":' + b"[" * 50_000, "bad-request"),
        ({"v": 2, "type": "config"}, "unsupported-version"),
        ({"v": 1, "type": "quote"}, "bad-request"),
        ({"v": 1, "type": "config", "config_id": 7, "quote": None}, "bad-request"),
        ({"v": 1, "type": "config", "config_id": "ns/app/web", "quote": "no base64!"}, "bad-request"),
        ({"v": 1, "type": "config", "config_id": "ns/app/web", "quote": 7}, "bad-request"),
    ],
)
def test_hostile_frames_are_refused_and_end_the_connection(server, owner, message, code):
    hostile = Enclave(server)
    assert hostile.exchange(message)["error"]["code"] == code
    with pytest.raises((SSL.ZeroReturnError, SSL.SysCallError)):
        hostile.tls.recv(1)
    hostile.socket.close()


@pytest.mark.parametrize("length", [0xFFFFFFFF, 1 << 20, 200_000])
def test_a_frame_that_says_it_is_too_long_is_refused_unread(server, owner, length):
    liar = Enclave(server)
    liar.tls.sendall(struct.pack(">I", length) + b"x" * 100)
    assert receive_frame(liar.tls)["error"]["code"] == "bad-request"
    liar.socket.close()


def test_another_application_protocol_is_refused(server, owner):
    for alpn in (b"http/1.1", b""):
        other = Enclave(server, alpn=alpn)
        assert "ALPN" in other.ask("ns/app/web", None)["error"]["message"]
        other.socket.close()


def test_the_las_answers_and_refuses_on_one_connection(server):
    with socket.create_connection(("127.0.0.1", server.ports["las"]), timeout=10) as las:
        send_frame(las, las_request(bytes(64)))
        assert set(receive_frame(las)) == {"v", "quote"}
        send_frame(las, las_request(bytes(64)) | {"mrenclave": "cd" * 32})
        assert receive_frame(las)["error"]["code"] == "bad-request"
        send_frame(las, las_request(bytes(64)))
        assert "quote" in receive_frame(las)


def test_a_las_request_cut_into_single_bytes_is_answered(server):
    with socket.create_connection(("127.0.0.1", server.ports["las"]), timeout=10) as las:
        las.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = json.dumps(las_request(bytes(64))).encode()
        for byte in struct.pack(">I", len(body)):
            las.sendall(bytes([byte]))
        las.sendall(body[:1000])
        las.sendall(body[1000:])
        assert "quote" in receive_frame(las)


def test_idle_and_half_open_peers_do_not_keep_others_out(server, owner):
    idle = [
        socket.create_connection(("127.0.0.1", server.ports[name])) for name in ("api", "enclave", "las") for _ in range(40)
    ]
    for one in idle[::2]:
        one.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a handshake, or of a frame
    assert owner.read_session("ns/app").name == "ns/app"
    enclave = Enclave(server)
    assert "service" in enclave.ask("ns/app/web", enclave.quote())
    enclave.close()
    for one in idle:
        one.close()


# --- life cycle ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_with_peers_that_hold_on(tmp_path, number):
    running = start_server(tmp_path, "--no-las")
    assert "las" not in running.ports
    client = running.client()
    client.create_namespace("ns")
    holding = [socket.create_connection(("127.0.0.1", port)) for port in running.ports.values()]
    assert running.stop(number) == 0
    assert running.errors() == ""
    for one in holding:
        one.close()
    # What the server stored is the embedded CAS's, and the other way round.
    assert open_embedded(tmp_path).read_session("ns", client.identity.spki_hash).name == "ns"


def test_a_taken_port_is_an_error_with_the_option_to_use(server, tmp_path):
    with pytest.raises(RuntimeError, match=r"can't be bound.*--api-port"):
        start_server(tmp_path, "--api-port", str(server.ports["api"]))


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "sconify_tasks.cas.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def test_the_command_prints_pin_root_and_collateral(server):
    state = ["--state", str(server.state)]
    assert command("identity", *state).stdout == server.spki + "\n"
    assert command("root", *state).stdout == open_embedded(server.state).platform.root_pem
    assert set(json.loads(command("collateral", *state).stdout)) >= {"tcb_info", "pck_crl"}


def test_a_platform_of_another_machine_is_trusted_when_added(tmp_path):
    node = start_server(tmp_path / "node")
    root, collateral = tmp_path / "root.pem", tmp_path / "collateral.json"
    root.write_text(command("root", "--state", str(node.state)).stdout)
    collateral.write_text(command("collateral", "--state", str(node.state)).stdout)
    for arguments, code in (([], "bad-quote"), (["--add-root", str(root), "--add-collateral", str(collateral)], None)):
        cas = start_server(tmp_path / "cas", "--no-las", *arguments)
        client = cas.client()
        client.create_namespace(f"ns{len(arguments)}")
        client.create_session(session_text(f"ns{len(arguments)}/app"))
        cas.ports["las"] = node.ports["las"]
        enclave = Enclave(cas)
        answer = enclave.ask(f"ns{len(arguments)}/app/web", enclave.quote())
        assert answer.get("error", {}).get("code") == code
        enclave.close()
        cas.stop()
    node.stop()


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["serve", "--add-root", "/nothing.pem"], 2, "/nothing.pem can't be read"),
        (["serve", "--api-port", "65536"], 2, "0 to 65535"),
        (["serve", "--api", "1"], 2, "unrecognized"),
        ([], 2, "COMMAND"),
    ],
)
def test_wrong_use_is_explained(arguments, code, why, tmp_path):
    done = command(*arguments, *(["--state", str(tmp_path)] if arguments else []))
    assert done.returncode == code
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_killed_while_it_writes_it_loses_nothing_that_it_confirmed(tmp_path):
    running = start_server(tmp_path)
    identity = new_identity()
    client = running.client(identity)
    client.create_namespace("ns")
    confirmed = []

    def write():
        predecessor = ""
        for number in range(10_000):
            try:
                text = session_text(env=f"v{number}", predecessor=predecessor)
                predecessor = client.create_session(text)
            except UnavailableError:
                return
            confirmed.append(predecessor)

    writer = threading.Thread(target=write)
    writer.start()
    while len(confirmed) < 20:
        writer.join(0.01)
    running.stop(signal.SIGKILL)
    writer.join()
    again = start_server(tmp_path)
    reader = again.client(identity)
    assert again.spki == running.spki
    assert [reader.read_session("ns/app", digest).hash for digest in confirmed[-20:]] == confirmed[-20:]
    newest = reader.read_session("ns/app")
    # At most the one that was under way may be there without having been confirmed.
    number = int(newest.text.split("VALUE: v")[1].split("}")[0])
    assert number in {len(confirmed) - 1, len(confirmed)}
    put_session(reader, session_text(env="after"), update_if_exists=True)
    assert again.stop() == 0
