"""resources: the session and a Dockerfile with its layers, where the documented tool leaves them.

The folder is enough to make the image again without this tool. The session holds keys: mode 0600.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sconify_tasks.assembled import assembled
from sconify_tasks.errors import SconifyError, UsageError
from sconify_tasks.image.model import BuiltImage, Layer
from sconify_tasks.options import session_file
from sconify_tasks.step import Context, Outputs


def run(context: Context) -> Outputs:
    """Write the files; yield nothing that others need."""
    folder = Path(context.text("folder"))
    session = session_file(context.options, folder)
    text = context.world.store.get(context.blob("session"))
    image = assembled(context)
    text_of_dockerfile = dockerfile(context.options.text("base"), image)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        session.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            names = [_layer(folder, number, layer) for number, layer in enumerate(image.layers)]
            _write(folder / "Dockerfile", text_of_dockerfile.encode(), mode=0o644)
            _remove_others(folder, names)
            _write(session, text, mode=0o600)
    except OSError as error:
        raise SconifyError(f"build resources can't be written to {error.filename}: {error.strerror}") from error
    layers = tuple((name, layer.size) for name, layer in zip(names, image.layers, strict=True))
    return Outputs(facts={"dockerfile": text_of_dockerfile, "layers": layers})


def dockerfile(base: str, image: BuiltImage) -> str:
    """A Dockerfile that adds our layers to the base and sets what the config sets."""
    config = json.loads(image.config)["config"]
    lines = _from(base)
    lines += [f"ADD {_layer_name(number, layer)} /" for number, layer in enumerate(image.layers)]
    lines += [f"ENV {name}={_quoted(value)}" for name, _, value in (item.partition("=") for item in config["Env"])]
    lines += [f"USER {config['User']}"] if config.get("User") else []
    lines += [f"EXPOSE {port}" for port in sorted(config.get("ExposedPorts", {}))]
    lines += [f"VOLUME {json.dumps(sorted(config['Volumes']))}"] if config.get("Volumes") else []
    lines += [f"STOPSIGNAL {config['StopSignal']}"] if config.get("StopSignal") else []
    lines += [f"ENTRYPOINT {json.dumps(config['Entrypoint'])}", "CMD []"]
    for line in lines:
        # Users, ports and signals come from the native image: none of them may add an instruction.
        if not line.isprintable():
            raise UsageError(
                f"the image's config has {line[:80]!r}, which no Dockerfile can say", hint="repair the native image"
            )
    return "\n".join(lines) + "\n"


def _from(base: str) -> list[str]:
    """Name the base as Docker can: only an engine's images and scratch have names there."""
    transport, _, name = base.partition(":")
    if transport == "docker":
        return [f"FROM {name}"]
    if transport not in {"dir", "oci", "oci-archive", "docker-archive"}:
        return [f"FROM {base}"]
    return [
        f"# The base is {base}, which no Dockerfile can name. Load it into your engine, and say what it is called there:",
        "# docker build --build-arg BASE=NAME .",
        "ARG BASE",
        "FROM ${BASE}",
    ]


def _quoted(value: str) -> str:
    """A value as Docker's parser takes it literally: a `$` would be a variable's."""
    return json.dumps(value, ensure_ascii=False).replace("$", "\\$")


def _layer(folder: Path, number: int, layer: Layer) -> str:
    """Put a layer beside the Dockerfile, without copying its bytes where the file system can share them."""
    import shutil

    name = _layer_name(number, layer)
    target = folder / name
    if target.exists() and target.stat().st_size == layer.size:
        return name
    temporary = target.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    try:
        os.link(layer.path, temporary)
    except OSError:
        shutil.copyfile(layer.path, temporary)
    temporary.replace(target)
    return name


def _remove_others(folder: Path, names: list[str]) -> None:
    """Remove the layers of an earlier build that the Dockerfile no longer names."""
    for old in folder.glob("layer-*-*.tar"):
        if old.name not in names:
            old.unlink()


def _layer_name(number: int, layer: Layer) -> str:
    return f"layer-{number}-{layer.diff_id.removeprefix('sha256:')[:16]}.tar"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other builds out of the folder: a temporary file in it is then a dead one's."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file whole or not at all, with its mode from the first byte on."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        # Made here, or refused: no link that was put there is followed, no looser mode is taken over.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
