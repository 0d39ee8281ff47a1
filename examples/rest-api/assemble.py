"""Assemble the example's native image without Docker: this machine's interpreter, standard library and shared objects.

Usage: assemble.py ROOTFS

The interpreter goes to /usr/local/bin and its library to /usr/local/lib, shared objects to where its loader finds them.
ROOTFS.json beside the folder is the image's config, as a Dockerfile's ENV and CMD would make it.
"""

import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from sconify_tasks.elf import inspect
from sconify_tasks.image.rootfs import RootfsSource
from sconify_tasks.libraries import Dependent, closure

HERE = Path(__file__).parent
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LEFT_OUT = shutil.ignore_patterns(
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "__pycache__",
    "config-*",
    "*.a",
    "_tkinter*",
    "_test*",
    "_xx*",
    "nis.*",
)


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def shared_objects(interpreter, library):
    """Paths of what the interpreter and its extension modules need: found by reading ELF files, nothing is run."""
    machine = RootfsSource(Path("/"))
    modules = []
    for module in sorted(library.glob("lib-dynload/*.so")):
        facts = inspect(module)
        modules.append(Dependent(path=os.fsencode(module), needed=facts.needed, rpath=facts.rpath, runpath=facts.runpath))
    return closure(machine, os.fsencode(interpreter), dlopened=modules).libraries


def certificate(folder):
    """A key and a certificate of its own for a new image."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rest-api")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(days=30))
    folder.mkdir(parents=True, exist_ok=True)
    plain = serialization.NoEncryption()
    (folder / "api.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    (folder / "api.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def contents(folder):
    """What lies in a folder, by path: mode, size and time of files, the targets of links."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        link = path.readlink() if path.is_symlink() else ""
        found[path.relative_to(folder)] = (about.st_mode, 0 if path.is_dir() else about.st_size, about.st_mtime_ns, link)
    return found


def main():
    final = Path(sys.argv[1])
    rootfs = final.with_name(final.name + ".new")
    shutil.rmtree(rootfs, ignore_errors=True)
    if (final / "tls").exists():  # assembled again, the image keeps its key
        shutil.copytree(final / "tls", rootfs / "tls")
    assemble(rootfs)
    # What is as it was stays as it is: a folder is known by its stats, and a new copy of it would be looked at anew.
    if final.exists() and contents(final) == contents(rootfs):
        shutil.rmtree(rootfs)
    else:
        shutil.rmtree(final, ignore_errors=True)
        rootfs.rename(final)
    write_config(final.with_name(final.name + ".json"))


def assemble(rootfs):
    interpreter = Path(sys._base_executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))

    copy(interpreter, rootfs / "usr/local/bin" / VERSION)
    (rootfs / "usr/local/bin/python3").symlink_to(VERSION)
    shutil.copytree(library, rootfs / "usr/local/lib" / VERSION, symlinks=True, ignore=LEFT_OUT)
    for found in shared_objects(interpreter, library):
        copy(Path(os.fsdecode(found.path)), rootfs / os.fsdecode(found.path).lstrip("/"))
    shutil.copytree(HERE / "app", rootfs / "app", ignore=LEFT_OUT)
    if not (rootfs / "tls").exists():
        certificate(rootfs / "tls")
    (rootfs / "tmp").mkdir()
    (rootfs / "tmp").chmod(0o1777)
    for made in rootfs.rglob("*"):  # what was not copied has the time of the copy
        if made.is_dir() or made.is_symlink():
            os.utime(made, (0, 0), follow_symlinks=False)


def write_config(path):
    config = {"Cmd": ["/bin/sh", "-c", "python3 -B /app/rest_api.py"], "WorkingDir": "/app", "ExposedPorts": {"8080/tcp": {}}}
    config["Env"] = ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "API_MODE=confidential"]
    image = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine], "os": "linux", "config": config}
    text = json.dumps(image, indent=2) + "\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


if __name__ == "__main__":
    main()
