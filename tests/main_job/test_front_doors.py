"""What the README tells a user to type, on a machine without a Docker Engine, and without root where there is root to drop."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from main_job.server import PROGRAMS, clean_environment
from parts.delivered import moment, validate_written
from parts.need import missing

from sconify_tasks.image.validate import validate

EXAMPLE = Path(__file__).parents[2] / "examples" / "rest-api"
USER = "1000"
PROJECT = """\
version: 1
project: shop
defaults:
  base: scratch
  binary: /usr/local/bin/python3
  dir: [/app, /tls]
  allow-debug-mode: true
images:
  api:
    from: dir:build/native
    to: oci:build/project:api
  quiet:
    from: dir:build/native
    to: oci:build/project:quiet
    env: [API_MODE=quiet]
"""


class User:
    """Somebody without root, capabilities or an engine, with a home and a copy of the example."""

    def __init__(self, folder, unshare):
        self.home, self.example = folder / "home", folder / "rest-api"
        shutil.copytree(EXAMPLE, self.example, ignore=shutil.ignore_patterns("build", "__pycache__"))
        self.home.mkdir()
        # In a user namespace root is an ordinary user too: another number, no capability, and the same files.
        self.without_root = [unshare, "--user", f"--map-user={USER}", f"--map-group={USER}", "--"] if os.geteuid() == 0 else []

    def run(self, *command):
        environment = {**clean_environment(), "HOME": str(self.home), "PATH": f"{PROGRAMS}:/usr/bin:/bin"}
        begun = moment()
        ended = subprocess.run(
            [*self.without_root, *command], cwd=self.example, env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode == 0:
            validate_written(self.example, since=begun)
        return ended


@pytest.fixture(scope="module")
def user(tmp_path_factory, need):
    somebody = User(tmp_path_factory.mktemp("user"), need("unshare"))
    seen = somebody.run(sys.executable, "-c", "import os; print(os.getuid() != 0)")
    if seen.stdout != "True\n":
        missing(f"a user namespace to drop root in: {seen.stderr}")
    return somebody


@pytest.fixture(scope="module")
def built(user):
    """The README's first command, without the installation."""
    done = user.run("./build.sh")
    assert done.returncode == 0, done.stderr
    return done


def test_the_first_command_leaves_an_image_a_session_and_its_name(user, built):
    assert built.stdout == "rest-api-demo/rest-api\n"
    session = user.example / "build-resources" / "session.yml"
    assert (session.stat().st_mode & 0o777, session.read_text().splitlines()[0]) == (0o600, "name: rest-api-demo/rest-api")
    assert (user.example / "build-resources" / "Dockerfile").exists()
    index = json.loads((user.example / "build" / "encrypted" / "index.json").read_text())
    assert [item["annotations"]["org.opencontainers.image.ref.name"] for item in index["manifests"]] == ["rest-api"]
    blobs = user.example / "build" / "encrypted" / "blobs" / "sha256"
    greeting = (user.example / "app" / "greeting.txt").read_bytes().strip()
    assert not any(greeting in blob.read_bytes() for blob in blobs.iterdir())


def test_the_image_that_is_left_is_a_valid_one(user, built):
    validate(user.example / "build" / "encrypted", "rest-api")


def test_the_same_command_again_has_nothing_left_to_do(user, built):
    images = {path: path.stat().st_mtime_ns for path in (user.example / "build" / "encrypted").rglob("*")}
    again = user.run("./build.sh")
    assert (again.returncode, again.stdout) == (0, built.stdout)
    assert again.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in (user.example / "build" / "encrypted").rglob("*")} == images


def test_a_project_file_makes_every_image_and_a_second_run_none(user, built):
    (user.example / "sconify.yaml").write_text(PROJECT)
    first = user.run("doit", "sconify")
    assert first.returncode == 0, first.stderr
    names = dict(line.split(" ", 1) for line in first.stdout.splitlines())
    assert sorted(names) == ["api", "quiet"]
    assert all(name.count("/") >= 1 for name in names.values())
    second = user.run("doit", "sconify")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    one = user.run("doit", "sconify", "qu*")
    assert one.stdout.split() == ["quiet", names["quiet"]]


def test_the_program_in_the_image_measures_itself_and_refuses_to_start_alone(user, built, tmp_path):
    """SCONE_HASH=1 needs neither engine, CAS nor container: it is the measurement that the session names."""
    binary = next(path for path in (user.example / "build-resources").glob("layer-*.tar") if _has_binary(path))
    subprocess.run(["tar", "-C", str(tmp_path), "-xf", str(binary)], check=True)
    program = next((tmp_path / "usr/local/bin").glob("python3.*"))
    told = subprocess.run([program], env={"SCONE_HASH": "1"}, capture_output=True, text=True, check=False)
    assert told.stdout.strip() in (user.example / "build-resources" / "session.yml").read_text()
    assert len(told.stdout) == 65


def _has_binary(layer):
    listed = subprocess.run(["tar", "-tvf", str(layer)], capture_output=True, text=True, check=True).stdout
    return any(line.startswith("-") and "usr/local/bin/python3." in line for line in listed.splitlines())
