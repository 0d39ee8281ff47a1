"""What an engine was asked for once is not asked for again."""

import io

import pytest
from parts.images import file, folder, layer_bytes, symlink

from sconify_tasks.image.archived import ContainerArchives
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.held import Held

LIBRARIES = [b"/usr/lib/lib%d.so.1" % number for number in range(9)]


@pytest.fixture(scope="module")
def name(engine):
    items = [folder(b"/app"), *(file(b"/app/f%d" % number, b"content %d" % number) for number in range(9))]
    items += [
        folder(b"/usr"),
        folder(b"/usr/lib"),
        *(file(path, path) for path in LIBRARIES),
        symlink(b"/usr/lib/lib.so", b"lib0.so.1"),
    ]
    items += [(Entry(path=b"/app/link", kind=Kind.FILE, hardlink=b"/app/f0"), None)]
    return engine.import_rootfs(layer_bytes(*items))


@pytest.fixture
def asked(engine, name, monkeypatch):
    image = engine.client.api.inspect_image(name)["Id"]
    source = ContainerArchives(lambda: engine.client, image, name=name, size=0)
    archives = []
    real = source._archive
    monkeypatch.setattr(source, "_archive", lambda path: archives.append(path) or real(path))
    yield source, archives
    source.close()


def contents(source, roots):
    with source.walk(roots) as stream:
        return {entry.path: (entry, content.read() if content else None) for entry, content in stream}


def test_a_second_walk_costs_the_engine_nothing_and_gives_the_same(asked):
    source, archives = asked
    first = contents(source, [b"/app"])
    archives.clear()
    assert contents(source, [b"/app"]) == first
    one = contents(source, [b"/app/f%d" % number for number in range(9)])
    assert one == {path: found for path, found in first.items() if path.startswith(b"/app/f")}
    assert source.read(b"/app/f3", limit=99) == b"content 3"
    assert source.lstat(b"/app/absent") is None
    assert source.listdir(b"/app") == [*(b"f%d" % number for number in range(9)), b"link"]
    assert archives == []


def test_a_hard_link_alone_keeps_its_content_when_its_first_name_is_not_asked_for(asked):
    source, _ = asked
    for _ in range(2):
        linked = contents(source, [b"/app/link"])[b"/app/link"]
        assert linked[1] == b"content 0"
        assert linked[0].hardlink == b""
        contents(source, [b"/app"])


def test_held_and_unheld_roots_of_one_walk_come_once_each(asked):
    source, _ = asked
    contents(source, [b"/app"])
    with source.walk([b"/app/f1", b"/app/f2", *LIBRARIES]) as stream:
        paths = [entry.path for entry, _ in stream]
    assert sorted(paths) == sorted([b"/app/f1", b"/app/f2", *LIBRARIES])


def test_many_libraries_of_one_directory_are_one_archive(asked):
    source, archives = asked
    assert [source.read(path, limit=99) for path in LIBRARIES] == LIBRARIES
    assert len(archives) <= 7
    assert source.lstat(b"/usr/lib/lib.so").target == b"lib0.so.1"


def test_contents_that_do_not_fit_come_from_the_engine_again(asked):
    source, archives = asked
    source._held = Held(limit=20)
    first = contents(source, [b"/app"])
    archives.clear()
    assert contents(source, [b"/app"]) == first
    assert archives[0] == b"/app"


def test_what_does_not_fit_is_not_read():
    content = io.BytesIO(b"12345")
    held = Held(limit=4)
    assert held.keep(Entry(path=b"/f", kind=Kind.FILE, size=5), content) is None
    assert content.tell() == 0
    assert held.keep(Entry(path=b"/g", kind=Kind.FILE, size=4), io.BytesIO(b"1234")).read() == b"1234"
    assert held.open(b"/f") is None
    assert held.open(b"/g").read() == b"1234"
    held.close()
    assert held.open(b"/g") is None
