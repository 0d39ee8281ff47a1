"""Whole files copied to their places in one file, from several threads: the bytes, and what a short file or a full disk is."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sconify_tasks import kernel_copy
from sconify_tasks.errors import StoreError
from sconify_tasks.kernel_copy import Copier, is_plain_file

SIZES = (0, 1, 4095, 262_143, 262_144, 262_145, 1_000_000)


@pytest.mark.parametrize("first", [0, 32, 4096], ids=["on blocks", "off them", "later block"])
def test_files_lie_where_they_belong_and_nothing_else_is_touched(tmp_path, first):
    files = []
    for number, size in enumerate(SIZES):
        path = tmp_path / str(number)
        path.write_bytes(os.urandom(size))
        files.append(path)
    wanted = bytearray(b"\xff" * (first + sum(SIZES) + 10))
    with (tmp_path / "out").open("w+b") as out:
        out.write(wanted)
        out.flush()
        copier, at, jobs = Copier(out), first, []
        for path in files:
            content = path.read_bytes()
            wanted[at : at + len(content)] = content
            jobs.append((path, at, len(content)))
            at += len(content)

        def copy(job) -> None:
            path, offset, size = job
            with path.open("rb") as file:
                copier.copy(file.fileno(), offset, size)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(copy, jobs))
        assert out.tell() == len(wanted)
    assert (tmp_path / "out").read_bytes() == wanted


@pytest.mark.parametrize("offset", [0, 32])
def test_a_file_that_became_shorter_is_an_error(tmp_path, offset):
    (tmp_path / "file").write_bytes(b"short")
    with (tmp_path / "out").open("w+b") as out, (tmp_path / "file").open("rb") as file:
        copier = Copier(out)
        with pytest.raises(StoreError, match="became shorter"):
            copier.copy(file.fileno(), offset, 6)


@pytest.mark.parametrize("offset", [0, 32])
def test_a_full_disk_is_an_error(tmp_path, offset):
    (tmp_path / "file").write_bytes(bytes(5000))
    with Path("/dev/full").open("r+b", buffering=0) as out, (tmp_path / "file").open("rb") as file:
        assert not is_plain_file(out)
        copier = Copier(out)
        with pytest.raises(StoreError, match="copying the payload failed: "):
            copier.copy(file.fileno(), offset, 5000)


def test_where_the_kernel_does_not_copy_the_bytes_are_read_and_written(tmp_path, monkeypatch):
    def refused(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(kernel_copy.os, "copy_file_range", refused)
    content = os.urandom(600_000)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "out").open("w+b") as out, (tmp_path / "file").open("rb") as file:
        Copier(out).copy(file.fileno(), 0, len(content))
    assert (tmp_path / "out").read_bytes() == content
