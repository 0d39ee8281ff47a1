"""Of a native folder what is selected is read, and nothing else; where the folder lies and when it was made does not matter."""

from __future__ import annotations

import os
import shutil

from build.small_image import convert, write

from sconify_tasks.image.folder import Seen


def test_of_a_folder_only_what_is_selected_is_read(native, place, monkeypatch):
    write(native / "usr" / "share" / "unselected", b"never read")
    opened = []
    real = Seen.open
    monkeypatch.setattr(Seen, "open", lambda self: opened.append(self.path) or real(self))
    assert convert(native, place).code == 0
    assert b"/app/secret" in opened
    assert b"/usr/share/unselected" not in opened
    opened.clear()
    write(native / "usr" / "share" / "unselected", b"never read, whatever it says")
    outcome = convert(native, place)
    assert outcome.code == 0
    assert {"encrypt", "copy", "deliver"}.isdisjoint(outcome.started)
    assert [path for path in opened if path.startswith((b"/app/", b"/usr/share/"))] == []


def test_a_copy_of_the_folder_gives_the_same_image(native, place, tmp_path):
    assert convert(native, place).code == 0
    shutil.copytree(native, tmp_path / "copied" / "native", symlinks=True)
    shutil.copy2(native.with_name("native.json"), tmp_path / "copied" / "native.json")
    for path in [native, *native.rglob("*")]:
        found, copied = path.lstat(), tmp_path / "copied" / "native" / path.relative_to(native)
        os.utime(copied, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
    clean = place.beside(tmp_path / "clean")
    assert convert(tmp_path / "copied" / "native", clean).code == 0
    assert clean.image_digest() == place.image_digest()
    outcome = convert(tmp_path / "copied" / "native", place)
    assert outcome.code == 0
    assert {"encrypt", "copy", "sconify", "deliver"}.isdisjoint(outcome.started)
