"""The root key is made once, whole or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from sconify_tasks import keys
from sconify_tasks.errors import StoreError
from sconify_tasks.keys import load_root_key


@pytest.mark.parametrize("name", ["fsync", "link"])
def test_a_full_disk_is_an_error_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, name):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(keys.os, name, full)
        with pytest.raises(StoreError, match=r"root\.key.*No space left") as caught:
            load_root_key(tmp_path / "state")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "state").iterdir()) == []
    assert load_root_key(tmp_path / "state") == load_root_key(tmp_path / "state")
