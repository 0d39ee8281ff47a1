"""What an image is given: defaults, templates, lists that are added to, null; as tables and as properties."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.option_table import BY_NAME
from sconify_tasks.project import load_project


def loaded(folder, text):
    path = folder / "sconify.yaml"
    path.write_text("version: 1\nproject: p\n" + text)
    return load_project(path)


def refused(folder, text):
    with pytest.raises(UsageError) as caught:
        loaded(folder, text)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder / "sconify.yaml"))


@pytest.mark.parametrize(
    ("defaults", "template", "image", "expected"),
    [
        ("dir: [/d]", "", "", ("/d",)),
        ("dir: [/d]", "dir: [/t]", "", ("/t",)),
        ("dir: [/d]", "dir: [/t]", "dir: [/i]", ("/i",)),
        ("dir: [/d]", "dir+: [/t]", "dir+: [/i]", ("/d", "/t", "/i")),
        ("dir: [/d]", "dir: [/t]", "dir+: /i", ("/t", "/i")),
        ("dir+: [/d]", "", "dir+: [/i]", ("/d", "/i")),
        ("dir: [/d]", "dir+: [/t]", "dir: null", ()),
        ("dir: [/d]", "dir: ~", "dir+: [/i]", ("/i",)),
        ("dir: [/d]", "", "dir: []", ()),
        ("dir: [/d]", "", "dir+: []", ("/d",)),
        ("dir: [/d, /d]", "", "dir+: [/d]", ("/d", "/d", "/d")),
    ],
)
def test_lists_are_replaced_added_to_and_reset(tmp_path, defaults, template, image, expected):
    text = f"defaults: {{{defaults}}}\ntemplates: {{t: {{{template}}}}}\nimages: {{a: {{extends: t{', ' * bool(image)}{image}}}}}\n"
    assert loaded(tmp_path, text).images["a"]["dir"] == expected


def test_null_takes_every_option_back_to_the_tables_default(tmp_path):
    keys = [option.name for option in BY_NAME.values() if option.yaml]
    nothing = ", ".join(f"{key}: null" for key in keys)
    text = f"defaults: {{heap: 2G, binary-fs: true, dir: [/a], base: x, key-epoch: 3}}\nimages: {{a: {{{nothing}}}}}\n"
    image = loaded(tmp_path, text).images["a"]
    assert {key: image[key] for key in keys} == {key: BY_NAME[key].initial for key in keys}


@pytest.mark.parametrize("option", ["dir", "heap", "binary", "binary-fs"])
def test_a_value_that_was_forgotten_is_no_reset(tmp_path, option):
    assert "must be" in refused(tmp_path, f"images:\n  a:\n    {option}:\n")


def test_templates_extend_templates_and_say_less_than_the_image(tmp_path):
    text = """\
defaults: {heap: 1G, stack: 1M}
templates:
  python: {binary: /usr/bin/python3, heap: 2G, dir: [/app]}
  flask: {extends: python, dir+: [/tls], stack: 2M}
images:
  api: {extends: flask, heap: 3G}
  job: {extends: python}
"""
    api, job = loaded(tmp_path, text).images.values()
    assert (api["binary"], api["heap"], api["stack"], api["dir"]) == ("/usr/bin/python3", 3 << 30, 2 << 20, ("/app", "/tls"))
    assert (job["heap"], job["stack"], job["dir"]) == (2 << 30, 1 << 20, ("/app",))


@pytest.mark.parametrize(
    ("text", "where", "part"),
    [
        ("images: {a: {extends: t}}", ":3:", "no template 't'"),
        ("templates: {python: {}}\nimages: {a: {extends: pyton}}", ":4:", "did you mean 'python'"),
        ("templates: {a: {extends: b}, b: {extends: a}}\nimages: {x: {}}", ":3:", "circle: b -> a -> b"),
        ("templates: {a: {extends: a}}\nimages: {x: {}}", ":3:", "circle"),
        ("templates: {a: {extends: gone}}\nimages: {x: {}}", ":3:", "no template 'gone'"),
        ("templates: {a: {extends: [b]}}\nimages: {x: {}}", ":3:", "must be text"),
        ("templates: {a/b: {}}\nimages: {x: {}}", ":3:", "the template's name"),
        ("defaults: {extends: t}\nimages: {x: {}}", ":3:", "no option 'extends'"),
        ("images: {a: {heap+: 1G}}", ":3:", "may be repeated"),
        ("images: {a: {binary-fs+: true}}", ":3:", "may be repeated"),
        ("images: {a: {dir++: /a}}", ":3:", "no option"),
        ("images: {a: {nothing+: /a}}", ":3:", "no option"),
        ("images: {a: {state+: /a}}", ":3:", "no option"),
        ("images: {a: {dir: /a, dir+: /b}}", ":3:", "both dir and dir+"),
        ("images: {a: {dir: null, dir+: /b}}", ":3:", "both dir and dir+"),
        ("images: {a: {dir+: null}}", ":3:", "must be text"),
        ("images: {a: {dir+: relative}}", ":3:", "absolute"),
        ("images: {a: {dir+: {a: b}}}", ":3:", "list"),
    ],
)
def test_what_can_not_be_is_said_with_its_line(tmp_path, text, where, part):
    message = refused(tmp_path, text)
    assert message.startswith(where), message
    assert part in message


def test_a_template_of_a_file_serves_the_files_that_it_includes_and_no_other(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        part = f"version: 1\ntemplates: {{own: {{heap: 3G}}}}\nimages: {{{name}: {{extends: own}}, {name}2: {{extends: common}}}}\n"
        (tmp_path / name / "sconify.yaml").write_text(part)
    text = "include: '*/sconify.yaml'\ntemplates: {common: {heap: 2G}}\n"
    heaps = {name: image.number("heap") >> 30 for name, image in loaded(tmp_path, text).images.items()}
    assert heaps == {"a": 3, "a2": 2, "b": 3, "b2": 2}
    assert "there already" in refused(tmp_path, text.replace("common", "own"))
    assert "no template 'own'" in refused(tmp_path, text + "images: {c: {extends: own}}\n")


PATHS = st.lists(st.sampled_from(["/a", "/b", "/c"]), max_size=3)
CHANGES = st.one_of(
    st.just({}),
    st.just({"dir": None}),
    PATHS.map(lambda paths: {"dir": paths}),
    PATHS.map(lambda paths: {"dir+": paths}),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.lists(CHANGES, min_size=1, max_size=5), st.integers(min_value=0, max_value=3))
def test_however_layers_are_spread_over_files_and_templates_the_result_is_that_of_applying_them_in_order(
    tmp_path, layers, files
):
    """Defaults of `files` nested files, then a chain of templates, then the image: the model is a fold over the layers."""
    expected: tuple[str, ...] = ()
    for layer in layers:
        if "dir" in layer:
            expected = tuple(layer["dir"] or ())
        expected += tuple(layer.get("dir+", ()))
    *above, image = layers
    defaults, chain = above[:files], above[files:]
    folder = tmp_path
    for at, layer in enumerate([*defaults, None]):
        head = {"version": 1} | ({"project": "p"} if at == 0 else {})
        folder.mkdir(exist_ok=True)
        if layer is None:
            templates = {f"t{n}": said | ({"extends": f"t{n - 1}"} if n else {}) for n, said in enumerate(chain)}
            extends = {"extends": f"t{len(chain) - 1}"} if chain else {}
            text = head | {"templates": templates, "images": {"x": image | extends}}
        else:
            text = head | {"include": "d/sconify.yaml", "defaults": layer}
        (folder / "sconify.yaml").write_text(json.dumps(text))
        folder = folder / "d"
    assert load_project(tmp_path / "sconify.yaml").images["x"]["dir"] == expected
