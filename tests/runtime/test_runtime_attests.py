"""Before the program: the binary measures itself, and the CAS decides. Every refusal is one line with the next move."""

import socket
import subprocess

import pytest

SOURCE = "print('started')"


def test_the_measurement_is_the_one_that_was_signed(tree):
    made = tree()
    made.put("/app/main.py", SOURCE)
    made.convert()
    done = made.run(env={"SCONE_HASH": "1"})
    assert (done.stdout, done.stderr, done.returncode) == (made.mrenclave + "\n", "", 0)


def test_the_settings_are_printed_and_the_program_runs(run_python):
    done = run_python(SOURCE, env={"SCONE_VERSION": "1"})
    lines = done.stdout.splitlines()
    assert "export SCONE_HEAP=1073741824" in lines
    assert lines[-2].startswith("Enclave hash: ")
    assert lines[-1] == "started"


def test_the_las_is_asked_for_a_quote_bound_to_the_channel(run_python, services):
    cas, las = services
    before = len(las.requests)
    assert run_python(SOURCE).stdout == "started\n"
    (request,) = las.requests[before:]
    assert request["report_data"].endswith("00" * 32)
    assert len(bytes.fromhex(request["sigstruct"])) == 1808
    assert cas.requests[-1]["config_id"] == "ns/test/service"


@pytest.mark.parametrize("position", ["code", "config", "signature"])
def test_a_modified_measured_part_refuses_to_start(run_python, position):
    def tamper(tree):
        path = tree.at(tree.binary)
        data = bytearray(path.read_bytes())
        place = {
            "code": data.index(b"simulation mode: the host can read"),
            "config": data.index(b'"heap":') + 7,
            "signature": data.rindex(bytes.fromhex("06000000e100000000000100000000 00".replace(" ", ""))) + 600,
        }[position]
        data[place] ^= 1
        path.write_bytes(bytes(data))

    done = run_python(SOURCE, tamper=tamper)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("[SCONE|FATAL] the measured part of the binary was modified (")
    assert done.stderr.count("\n") == 1


def test_a_modified_original_refuses_to_start(run_python):
    def tamper(tree):
        path = tree.at(tree.binary)
        data = bytearray(path.read_bytes())
        data[data.rindex(b"\x7fELF") + 200_000] ^= 1
        path.write_bytes(bytes(data))

    done = run_python(SOURCE, tamper=tamper)
    assert (done.returncode, done.stdout) == (1, "")
    assert "was changed after the image was built" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "option"),
    [
        ("SCONE_HEAP", "2G", "--heap=2G"),
        ("SCONE_ALLOW_DLOPEN", "2", "--dlopen=2"),
        ("SCONE_FORK", "1", "--fork=1"),
        ("SCONE_HEAP", "x", "--heap=x"),
    ],
)
def test_a_variable_that_contradicts_the_measurement_stops_the_start(run_python, variable, value, option):
    done = run_python(SOURCE, env={variable: value})
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{variable}={value} contradicts the measured configuration" in done.stderr
    assert option in done.stderr


def test_a_variable_that_repeats_the_measurement_is_fine(run_python):
    assert run_python(SOURCE, env={"SCONE_HEAP": "1024M", "SCONE_STACK": "1m", "SCONE_FORK": "0"}).stdout == "started\n"


def test_the_cas_refusal_is_told_with_its_reason(run_python, services):
    services[0].refusal = {"code": "unexpected-measurement", "message": "MRENCLAVE is not the session's"}
    done = run_python(SOURCE)
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused (unexpected-measurement): MRENCLAVE is not the session's" in done.stderr


def test_without_a_las_the_cas_decides_and_both_reasons_are_told(run_python):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 18766)) == 0:
            pytest.skip("SKIPPED: another LAS listens on this machine's port 18766, where the runtime looks next")
    done = run_python(SOURCE, env={"SCONE_LAS_ADDR": f"127.0.0.1:{port}"})
    assert done.returncode == 1
    assert "quote-required" in done.stderr
    assert "no LAS gave a quote" in done.stderr


def test_another_cas_than_the_pinned_one_gets_nothing(run_python, services):
    from runtime.fake_cas import FakeCas

    other = FakeCas()
    done = run_python(SOURCE, env={"SCONE_CAS_ADDR": f"127.0.0.1:{other.port}"})
    assert done.returncode == 1
    assert "its identity key is" in done.stderr
    assert other.requests == []


def test_a_service_setting_that_the_runtime_does_not_know_is_refused(tree, services):
    made = tree()
    made.put("/app/main.py", SOURCE)
    made.convert()
    services[0].service["volumes"] = []
    done = made.run()
    assert done.returncode == 1
    assert "does not know" in done.stderr


def test_another_manifest_than_the_sessions_is_refused(run_python):
    done = run_python(
        SOURCE, tamper=lambda tree: tree.at("/fspf/fs.fspf").write_bytes(tree.at("/fspf/fs.fspf").read_bytes()[:-1])
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "not the one of the session" in done.stderr


def test_a_command_that_is_not_the_measured_binary_is_refused(run_python):
    done = run_python(SOURCE, command=["/bin/sh", "-c", "true"])
    assert done.returncode == 1
    assert "the measured binary is /usr/bin/python3.11" in done.stderr


def test_a_stub_without_its_supervisor_says_so(runtime_binary):
    done = subprocess.run([str(runtime_binary)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "started without its supervisor" in done.stderr


def test_an_environment_without_a_session_says_what_is_missing(run_python):
    done = run_python(SOURCE, env={"SCONE_CONFIG_ID": ""})
    assert done.returncode == 1
    assert "SCONE_CONFIG_ID is not set" in done.stderr
