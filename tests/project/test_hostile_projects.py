"""Projects that are meant to hurt: they end with one line, soon, and without much memory."""

import resource

import pytest

from sconify_tasks.errors import UsageError
from sconify_tasks.project import MAX_IMAGES, load_project
from sconify_tasks.project_file import MAX_EXTENDS, MAX_SIZE

HEAD = "version: 1\nproject: p\n"
PART = "version: 1\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


def refused(folder, root, part=None):
    (folder / "sconify.yaml").write_text(root)
    if part is not None:
        (folder / "part").mkdir(exist_ok=True)
        (folder / "part" / "sconify.yaml").write_text(part)
    with pytest.raises(UsageError) as caught:
        load_project(folder / "sconify.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_ten_thousand_images_are_a_project(tmp_path):
    images = "".join(f"  i{n}: {{from: a, to: 'b:{n}', binary: /c, dir+: [/d], env: [E=1]}}\n" for n in range(10_000))
    (tmp_path / "sconify.yaml").write_text(f"{HEAD}defaults: {{dir: [/app]}}\nimages:\n{images}")
    project = load_project(tmp_path / "sconify.yaml")
    assert len(project.images) == 10_000
    assert project.images["i9999"]["dir"] == ("/app", "/d")


def test_more_images_than_anybody_has_are_refused(tmp_path):
    images = "".join(f" i{n}: {{}}\n" for n in range(MAX_IMAGES + 1))
    assert f"more than {MAX_IMAGES} images" in refused(tmp_path, f"{HEAD}images:\n{images}")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (PART + BOMB, "aliases written out"),
        (PART + "images: " + "[" * 100_000, "nested deeper"),
        (PART + "images: " + "{a: " * 100_000, "nested deeper"),
        (PART + "images: {a: {env: [" + "A=1, " * 250_000 + "]}}", "more than 200000 values"),
        (PART + "# " + "x" * MAX_SIZE, "larger than"),
        (PART + "include: [" + "x, " * 100_000 + "]", "fits no file"),
        (PART + "include: '" + "**/x/" * 40 + "y'", "not allowed"),
        (PART + "include: '" + "*a" * 500 + "b'", "fits no file"),
        (PART + "include: '" + "[" * 5000 + "'", "fits no file"),
        (PART + "include: x" + "y" * 100_000, "fits no file"),
        (PART + 'include: "a\\0b"', "not allowed"),
        (PART + "images: {a: {env: ['" + "${X:-" * 50_000 + "']}}", "begins no variable"),
        (PART + "images: {a: {? [b]: c}}", "a key must be plain text"),
        (PART + "images: {a: {<<: {heap: 1G}}}", "no option '<<'"),
        (PART + "images: !!set {a}", "tag"),
    ],
    ids=range(15),
)
def test_a_hostile_part_ends_with_one_line(tmp_path, part, words):
    assert words in refused(tmp_path, f"{HEAD}include: part/sconify.yaml\n", part)


def test_lists_can_not_be_multiplied_by_inheriting_them(tmp_path):
    paths = ", ".join(["/a"] * 10_000)
    images = "".join(f"  i{n}: {{dir+: /b}}\n" for n in range(5_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "items in the lists" in refused(tmp_path, f"{HEAD}defaults: {{dir: [{paths}]}}\nimages:\n{images}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_templates_can_not_be_chained_without_end(tmp_path):
    chain = "".join(f"  t{n}: {{extends: t{n + 1}}}\n" for n in range(MAX_EXTENDS + 1)) + f"  t{MAX_EXTENDS + 1}: {{}}\n"
    assert "deep" in refused(tmp_path, f"{HEAD}templates:\n{chain}images: {{a: {{}}}}\n")
