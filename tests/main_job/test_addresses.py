"""How a container finds its CAS and LAS: by nothing but the image, through its network's gateway; or by what --cas names."""

import ipaddress
import subprocess
import uuid

import pytest
from main_job.containers import LABEL
from main_job.server import serving
from parts.need import missing

PORTS = {"api_port": 8081, "enclave_port": 18765, "las_port": 18766}


@pytest.fixture
def network(engine):
    """A network of its own: on its gateway's address, nobody else holds the usual ports."""
    made = engine.client.networks.create(f"sconify-test-{uuid.uuid4().hex[:10]}", labels=dict([LABEL.split("=")]))
    made.reload()
    [config] = made.attrs["IPAM"]["Config"]
    gateway = config.get("Gateway") or str(next(ipaddress.ip_network(config["Subnet"]).hosts()))
    yield made.name, gateway
    made.remove()


def test_an_image_as_it_is_finds_the_cas_on_its_gateway(workshop, engine, lab, network):
    name, gateway = network
    try:
        with serving(workshop.home, gateway, usual_ports=True) as cas:
            assert {port: getattr(cas, port) for port in PORTS} == PORTS
            command = ["docker", "-H", engine.host, "run", "-i", "--rm", "--label", LABEL, "--network", name, lab]
            done = subprocess.run(command, input="tell(ran=True)", capture_output=True, text=True, check=False)
    except ValueError:
        missing("the ports 8081, 18765 and 18766, on all addresses")
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", '{"ran": true}')


def test_a_cas_on_the_network_takes_the_session_and_serves_it(workshop, native, tmp_path, containers):
    """Another machine's state folder: only --cas, --cas-key and the identity made there connect it with the CAS."""
    image, cas = workshop.engine.name("remote"), containers.cas
    built = workshop.sconify(
        f"--from=docker:{native.image}", f"--to=docker:{image}", "--base=scratch", "--binary=/usr/bin/python3", "--dir=/app",
        f"--cas={cas.host}:{cas.api_port}", f"--cas-key={cas.spki}", f"--las={cas.host}:{cas.las_port}", "--create-namespace",
        "--command=python3 -B /app/lab.py", "--allow-debug-mode", home=tmp_path,
    )  # fmt: skip
    assert built.status == 0, built.stderr
    variables = dict(item.split("=", 1) for item in workshop.engine.client.api.inspect_image(image)["Config"]["Env"])
    assert variables["SCONE_CAS_ADDR"] == cas.host, "the port that takes sessions is not the one that enclaves ask"
    assert variables["SCONE_LAS_ADDR"] == f"{cas.host}:{cas.las_port}"
    assert containers.run(image, "tell(greeting=read('/app/greeting.txt'))").told == {"greeting": "hello from a protected file"}


def test_a_wrong_pin_is_refused_while_the_image_is_built(workshop, native, cas, tmp_path):
    image = workshop.engine.name("mispinned")
    built = workshop.sconify(
        f"--from=docker:{native.image}", f"--to=docker:{image}", "--base=scratch", "--binary=/usr/bin/python3", "--dir=/app",
        f"--cas={cas.host}:{cas.api_port}", f"--cas-key={'0' * 64}", "--create-namespace", "--allow-debug-mode", home=tmp_path,
    )  # fmt: skip
    assert (built.status, built.stdout) == (4, ""), built.stderr
