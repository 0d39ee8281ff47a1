"""A CAS that is not ours, and versions that don't belong together."""

import shutil

import pytest
from main_job.server import serving

MANIFEST = "/fspf/fs.fspf"


@pytest.fixture(scope="module")
def other_cas(tmp_path_factory, bridge):
    """A CAS of somebody else, with a key of its own."""
    with serving(tmp_path_factory.mktemp("other"), bridge) as served:
        yield served


def test_a_cas_with_another_key(lab, containers, other_cas):
    ended = containers.run(lab, cas=other_cas)
    assert (ended.status, ended.stdout) == (1, "")
    assert f"its identity key is {other_cas.spki[:16]}" in ended.stderr
    assert f"the image was built for {containers.cas.spki[:16]}" in ended.stderr


def test_quotes_of_another_machines_las(lab, containers, other_cas):
    ended = containers.run(lab, environment={"SCONE_LAS_ADDR": f"{other_cas.host}:{other_cas.las_port}"})
    assert (ended.status, ended.stdout) == (1, "")
    assert "bad-quote" in ended.stderr


def test_old_and_new_do_not_mix(workshop, native, containers, bridge, tmp_path):
    """The same image is built twice. Its old form is refused with the new session, and the new form with an old session."""
    options = (
        "--binary=/usr/bin/python3",
        "--dir=/app",
        "--dir=/tls",
        "--base=scratch",
        "--command=python3 -B /app/lab.py",
        "--allow-debug-mode",
    )
    image, kept = workshop.engine.name("rebuilt"), workshop.engine.name("kept")

    def build(source):
        built = workshop.sconify(f"--from=docker:{source}", f"--to=docker:{image}", *options)
        assert built.status == 0, built.stderr

    program = "tell(greeting=read('/app/greeting.txt'))"
    build(native.image)
    containers.docker("tag", image, kept)
    assert containers.run(kept, program).told == {"greeting": "hello from a protected file"}
    with workshop.locked():  # a copy in the middle of somebody's write would be of no use
        shutil.copytree(workshop.state, tmp_path / ".local" / "state" / "sconify")

    build(
        workshop.engine.build(f"FROM {native.image}\nADD greeting.txt /app/greeting.txt\n", {"greeting.txt": b"a new greeting"})
    )
    assert containers.run(image, program).told == {"greeting": "a new greeting"}

    ended = containers.run(kept, program)
    assert (ended.status, ended.stdout) == (1, "")
    assert MANIFEST in ended.stderr
    with serving(tmp_path, bridge) as restored:
        assert containers.run(kept, program, cas=restored).told == {"greeting": "hello from a protected file"}
        ended = containers.run(image, program, cas=restored)
    assert (ended.status, ended.stdout) == (1, "")
    assert MANIFEST in ended.stderr
