"""`include`: one project in many files. What fits, what an image inherits on the way, and what is refused."""

import os

import pytest

from sconify_tasks.errors import UsageError
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.project import MAX_INCLUDES, Found, find_project, load_project, project_of

ROOT = "version: 1\nproject: shop\ninclude: {include}\ndefaults: {{heap: 2G, dir: [/root]}}\n"
PART = "version: 1\nimages: {{{name}: {{from: dir:rootfs, to: 'oci:out:1', binary: /bin/x}}}}\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def project(folder, include, **parts):
    """A root that includes, and parts by their folder (`__` for a slash), each with an image of the folder's last name."""
    for place, text in parts.items():
        path = folder / place.replace("__", "/") / "sconify.yaml"
        write(path, text or PART.format(name=path.parent.name))
    return write(folder / "sconify.yaml", ROOT.format(include=include))


def refused(path):
    with pytest.raises(UsageError) as caught:
        load_project(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pattern_brings_the_images_of_every_file_that_it_fits_in_the_order_of_their_names(tmp_path):
    root = project(tmp_path, "services/*/sconify.yaml", services__web="", services__api="", services__deep__er="", other="")
    found = load_project(root)
    assert list(found.images) == ["api", "web"]
    assert found.name == "shop"
    assert [path.parent.name for path in found.sources] == [tmp_path.name, "api", "web"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("services/api/sconify.yaml", ["api"]),
        ("services/a*/sconify.yaml", ["api"]),
        ("services/[!a]*/sconify.yaml", ["web"]),
        ("services/???/sconify.yaml", ["api", "web"]),
        ("./services/*/sconify.yaml", ["api", "web"]),
        ("services/**/sconify.yaml", ["api", "deep", "web"]),
        ("**/sconify.yaml", ["tool", "api", "deep", "web"]),
        ("**/**/sconify.yaml", ["tool", "api", "deep", "web"]),
        ("**/deep/*.yaml", ["deep"]),
        ("[other/*/sconify.yaml, services/w*/sconify.yaml]", ["tool", "web"]),
        (".hid*/*.yaml", ["unseen"]),
    ],
)
def test_patterns_are_those_of_a_shell(tmp_path, pattern, expected):
    parts = {"services__web": "", "services__api": "", "services__sub__deep": "", "other__tool": ""}
    root = project(tmp_path, f"{pattern if pattern[1:2] == 'o' else repr(pattern)}", **parts)
    write(tmp_path / ".hidden" / "sconify.yaml", PART.format(name="unseen"))
    (tmp_path / "services" / "web" / "folder.yaml").mkdir()
    assert list(load_project(root).images) == expected


def test_paths_are_seen_from_the_file_that_writes_them(tmp_path):
    root = project(tmp_path, "a/*/sconify.yaml", a__b="")
    write(root, root.read_text() + "templates: {t: {template: policy.yml}}\n")
    write(tmp_path / "a/b/sconify.yaml", PART.format(name="b").replace("binary:", "extends: t, binary:"))
    image = load_project(root).images["b"]
    assert (image["from"], image["to"]) == (f"dir:{tmp_path}/a/b/rootfs", f"oci:{tmp_path}/a/b/out:1")
    assert image["template"] == str(tmp_path / "policy.yml")


def test_defaults_are_inherited_down_to_the_image_and_the_nearest_wins(tmp_path):
    root = project(tmp_path, "a/sconify.yaml", a="", a__b="")
    write(
        tmp_path / "a/sconify.yaml",
        "version: 1\ninclude: b/sconify.yaml\ndefaults: {heap: 3G, dir+: /a, env: [A=1]}\n"
        "images: {a: {to: x, dir+: [/image]}, plain: {to: y, heap: null, dir: null, env: []}}\n",
    )
    write(tmp_path / "a/b/sconify.yaml", "version: 1\ndefaults: {heap: 4G}\nimages: {b: {to: z}, c: {to: w, heap: 5G}}\n")
    images = load_project(root).images
    heaps = {name: image["heap"] for name, image in images.items()}
    assert heaps == {"a": 3 << 30, "plain": BY_NAME["heap"].initial, "b": 4 << 30, "c": 5 << 30}
    assert images["a"]["dir"] == ("/root", "/a", "/image")
    assert images["b"]["dir"] == ("/root", "/a")
    assert (images["plain"]["dir"], images["plain"]["env"], images["b"]["env"]) == ((), (), ("A=1",))


def test_a_part_does_not_change_what_its_siblings_inherit(tmp_path):
    root = project(tmp_path, "'*/sconify.yaml'", a="", b="")
    write(tmp_path / "a/sconify.yaml", "version: 1\ndefaults: {heap: 3G, dir+: /a}\nimages: {a: {to: x}}\n")
    images = load_project(root).images
    assert (images["b"]["heap"], images["b"]["dir"]) == (2 << 30, ("/root",))


@pytest.mark.parametrize(
    ("include", "part"),
    [
        ("nothing/*/sconify.yaml", "fits no file"),
        ("nothing/sconify.yaml", "fits no file"),
        ("sconify.yaml", "fits no file"),
        ("../sconify.yaml", "not allowed"),
        ("a/../../x.yaml", "not allowed"),
        ("/etc/*.yaml", "not allowed"),
        ("'**'", "not allowed"),
        ("''", "not allowed"),
        ("a//b", "not allowed"),
        ("{a: b}", "must be a list"),
        ("[[a]]", "must be text"),
    ],
)
def test_patterns_that_can_not_be_are_refused_with_their_line(tmp_path, include, part):
    message = refused(project(tmp_path, include, a=""))
    assert message.startswith(f"{tmp_path}/sconify.yaml:3: ")
    assert part in message


def test_two_images_of_one_name_are_refused_with_both_places(tmp_path):
    root = project(tmp_path, "'*/sconify.yaml'", a=PART.format(name="same"), b=PART.format(name="same"))
    message = refused(root)
    assert f"{tmp_path}/b/sconify.yaml:2: there is an image same already: {tmp_path}/a/sconify.yaml:2" in message


def test_files_that_include_each_other_are_refused_naming_the_circle(tmp_path):
    root = project(tmp_path, "a/sconify.yaml", a="version: 1\ninclude: b/sconify.yaml\n", a__b="")
    (tmp_path / "a/b/sconify.yaml").write_text("version: 1\ninclude: c/up.yaml\n")
    (tmp_path / "a/b/c").mkdir()
    (tmp_path / "a/b/c/up.yaml").symlink_to("../../sconify.yaml")
    a = tmp_path / "a"
    assert f"circle: {a}/sconify.yaml -> {a}/b/sconify.yaml -> {a}/b/c/up.yaml" in refused(root)


@pytest.mark.parametrize("include", ["[a/sconify.yaml, '*/sconify.yaml']", "[a/sconify.yaml, b/sconify.yaml]"])
def test_a_file_that_two_patterns_fit_is_refused(tmp_path, include):
    root = project(tmp_path, include, a="", b="version: 1\ninclude: link\n")
    (tmp_path / "b" / "link").symlink_to("../a/sconify.yaml")
    assert "a part of the project already" in refused(root)


def test_a_link_out_of_the_project_is_refused(tmp_path):
    outside = write(tmp_path / "outside" / "sconify.yaml", PART.format(name="x"))
    root = project(tmp_path / "inside", "'*/sconify.yaml'", a="")
    (tmp_path / "inside" / "link").symlink_to(outside.parent)
    message = refused(root)
    assert "outside the project" in message
    assert str(outside) in message


def test_links_within_the_project_lead_on_and_are_not_walked_through(tmp_path):
    root = project(tmp_path, "'*/sconify.yaml'", x__real="")
    (tmp_path / "link").symlink_to("x/real")
    assert list(load_project(root).images) == ["real"]
    (tmp_path / "x" / "loop").symlink_to("..")
    (tmp_path / "link").unlink()
    write(root, ROOT.format(include="x/**/sconify.yaml"))
    assert list(load_project(root).images) == ["real"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("version: 1\nproject: other\nimages: {a: {}}\n", "`project` of its own"),
        ("version: 1\nkey-epoch: 3\nimages: {a: {}}\n", "key-epoch stands in"),
        ("version: 1\n", "no 'images'"),
        ("version: 1\nimages: {}\n", "images is empty"),
        ("version: 1\nimages: [\n", "not YAML"),
        ("version: 1\ndefaults: {hep: 1}\nimages: {a: {}}\n", "did you mean 'heap'"),
    ],
)
def test_what_is_wrong_in_a_part_is_said(tmp_path, text, part):
    message = refused(project(tmp_path, "a/sconify.yaml", a=text))
    assert part in message
    assert "a/sconify.yaml" in message


def test_files_nest_so_deep_and_no_deeper(tmp_path):
    folder = tmp_path
    for _ in range(MAX_INCLUDES):
        folder = folder / "d"
        write(folder / "sconify.yaml", "version: 1\ninclude: d/sconify.yaml\n")
    write(folder / "sconify.yaml", PART.format(name="last"))
    root = write(tmp_path / "sconify.yaml", ROOT.format(include="d/sconify.yaml"))
    assert list(load_project(root).images) == ["last"]
    write(folder / "sconify.yaml", "version: 1\ninclude: d/sconify.yaml\n")
    write(folder / "d" / "sconify.yaml", PART.format(name="last"))
    assert f"more than {MAX_INCLUDES} deep" in refused(root)


def test_sizes_and_numbers_are_bounded(tmp_path, monkeypatch):
    root = project(tmp_path, "'*/sconify.yaml'", a="", b="")
    for name, most in (("sconify_tasks.project.MAX_FILES", 2), ("sconify_tasks.project.MAX_IMAGES", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(name, most)
            assert f"more than {most}" in refused(root)
    with monkeypatch.context() as patch:
        patch.setattr("sconify_tasks.project.MAX_TOTAL", 200)
        assert "larger than" in refused(root)
    with monkeypatch.context() as patch:
        patch.setattr("sconify_tasks.includes.MOST_ENTRIES", 2)
        assert "more than 2 names" in refused(root)


def test_a_folder_that_has_no_end_is_refused(tmp_path):
    root = project(tmp_path, "'**/sconify.yaml'", a="")
    deep = tmp_path
    for _ in range(70):
        deep = deep / "d"
        deep.mkdir()
    assert "folders deep" in refused(root)


def test_from_a_parts_folder_the_root_is_found_and_the_parts_images_are_chosen(tmp_path):
    root = project(tmp_path, "'services/*/sconify.yaml'", services__api="", services__web="")
    part = tmp_path / "services" / "api" / "sconify.yaml"
    write(part, PART.format(name="api") + "include: sub/sconify.yaml\n")
    write(part.parent / "sub" / "sconify.yaml", PART.format(name="sub"))
    below = part.parent / "src"
    below.mkdir()
    assert find_project(below) == project_of(part) == Found(root=root, nearest=part)
    found = load_project(root)
    assert found.images_of(part) == ("api", "sub")
    assert found.images_of(part.parent / "sub" / "sconify.yaml") == ("sub",)
    assert found.images_of(root) == tuple(found.images) == ("api", "sub", "web")


def test_a_root_below_a_root_stands_alone(tmp_path):
    project(tmp_path, "a/sconify.yaml", a="")
    own = write(tmp_path / "own" / "sconify.yaml", "version: 1\nproject: own\nimages: {a: {}}\n")
    assert find_project(own.parent).root == own


def test_a_part_that_nobody_includes_is_an_error(tmp_path):
    root = project(tmp_path, "a/sconify.yaml", a="", stray="")
    stray = tmp_path / "stray" / "sconify.yaml"
    assert find_project(stray.parent).root == root
    with pytest.raises(UsageError, match="does not include it"):
        load_project(root).images_of(stray)
    alone = write(tmp_path.parent / f"{tmp_path.name}-alone" / "sconify.yaml", PART.format(name="x"))
    assert "no 'project'" in refused(find_project(alone.parent).root)


def test_what_the_parse_depended_on_is_there_to_be_looked_at_again(tmp_path):
    root = project(tmp_path, "'*/sconify.yaml'", a="", b="")
    write(root, root.read_text() + "images: {r: {env: ['A=${SET}', 'B=${UNSET:-x}']}}\n")
    found = load_project(root, variables={"SET": "1", "OTHER": "2"})
    assert found.variables == {"SET": "1", "UNSET": None}
    assert "SET" not in repr(found)
    assert set(found.sources) == {root, tmp_path / "a/sconify.yaml", tmp_path / "b/sconify.yaml"}
    assert all(glob.holds() for glob in found.globs)
    same = load_project(root, variables={"SET": "1"})
    assert (same.sources, same.globs) == (found.sources, found.globs)
    write(tmp_path / "c" / "sconify.yaml", PART.format(name="c"))
    assert not all(glob.holds() for glob in found.globs)
    (tmp_path / "c" / "sconify.yaml").unlink()
    assert all(glob.holds() for glob in found.globs)
    write(tmp_path / "a/sconify.yaml", PART.format(name="changed"))
    assert load_project(root, variables={"SET": "1"}).sources != found.sources


def test_names_that_are_not_utf8_are_refused(tmp_path):
    root = project(tmp_path, "'*/sconify.yaml'", a="")
    write(tmp_path / os.fsdecode(b"\xff") / "sconify.yaml", PART.format(name="odd"))
    assert "not UTF-8" in refused(root)
