"""Reading a project: 1000 images in one file, in 1000 files, 10,000 in one. Beside it, PyYAML's own time for the same bytes.

python benchmarks/project_file.py

Processor seconds of one process each; the reference is `yaml.load(…, Loader=yaml.CSafeLoader)` of all the files, unchecked.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAD = "version: 1\nproject: bench\ndefaults: {base: scratch, heap: 1G}\n"
IMAGE = """\
  i{0}:
    from: dir:native{0}
    to: oci:out{0}:${{TAG:-1}}
    binary: /bin/prog
    dir: [/app, /tls]
    env+: [MODE=x]
"""
CASES = {"1000 images, one file": (1000, 1), "1000 images, 1000 files": (1000, 1000), "10,000 images, one file": (10_000, 1)}
RUNS = 3


def write(folder: Path, images: int, files: int) -> None:
    """Write the project."""
    if files == 1:
        (folder / "sconify.yaml").write_text(HEAD + "images:\n" + "".join(IMAGE.format(number) for number in range(images)))
        return
    (folder / "sconify.yaml").write_text(HEAD + "include: services/*/sconify.yaml\n")
    for number in range(files):
        part = folder / "services" / f"s{number}" / "sconify.yaml"
        part.parent.mkdir(parents=True)
        part.write_text("version: 1\nimages:\n" + IMAGE.format(number))


def measure(folder: Path) -> None:
    """Print processor seconds of loading and of the reference, and the peak of memory in MiB, of this process."""
    import yaml

    from sconify_tasks.project import load_project

    begun = time.process_time()
    project = load_project(folder / "sconify.yaml")
    loaded = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    texts = [path.read_text() for path in project.sources]
    before = time.process_time()
    for text in texts:
        yaml.load(text, Loader=yaml.CSafeLoader)
    print(loaded - begun, time.process_time() - before, peak, len(project.images))


def main() -> None:
    """Print one line a case."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    print(f"{'case':26} {'load s':>8} {'yaml s':>8} {'ratio':>6} {'peak MiB':>9}")
    for name, (images, files) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), images, files)
            runs = []
            for _ in range(RUNS):
                command = [sys.executable, __file__, folder]
                words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                runs.append([float(word) for word in words])
                assert runs[-1][3] == images
            load, reference, peak = (min(column) for column in list(zip(*runs, strict=True))[:3])
            print(f"{name:26} {load:8.3f} {reference:8.3f} {load / reference:6.2f} {peak:9.0f}")


if __name__ == "__main__":
    main()
