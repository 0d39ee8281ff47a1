"""sconify.yaml: read safely, checked against the option table, errors with file and line; schema and loader agree."""

import contextlib
import itertools
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify_tasks.errors import UsageError
from sconify_tasks.option_table import OPTIONS
from sconify_tasks.project import Found, find_project, load_project
from sconify_tasks.schema import project_schema

GOOD = """\
version: 1
project: shop
key-epoch: 2
defaults:
  heap: 2G
  base: python:3.11-slim
images:
  flask:
    from: shop/flask:1
    to: shop/flask:1-enc
    binary: /usr/bin/python3.11/
    dir: [/app/, /tls]
    env: A=1
    create-namespace: true
    dlopen: 2
  other: {from: dir:rootfs, to: "oci:out:tag", binary: java, heap: 4096, template: policy.yml, key-epoch: 3}
"""


class Core(yaml.SafeLoader):
    """YAML 1.2's idea of what a plain word is, as editors have it."""


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in (
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


def written(folder, text):
    path = folder / "sconify.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(folder, text):
    path = written(folder, text)
    with pytest.raises(UsageError) as caught:
        load_project(path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


def image(options):
    return f"version: 1\nproject: p\nimages:\n  a:\n    {options}\n"


def schema_takes(text):
    validator = jsonschema.Draft202012Validator(project_schema())
    return validator.is_valid(yaml.load(text, Loader=Core))


def test_a_project_file_gives_the_options_of_each_image(tmp_path):
    project = load_project(written(tmp_path, GOOD))
    assert (project.name, project.key_epoch, project.folder) == ("shop", 2, tmp_path)
    assert list(project.images) == ["flask", "other"]
    flask, other = project.images.values()
    assert flask["dir"] == ("/app", "/tls")
    assert flask["env"] == ("A=1",)
    assert (flask["heap"], flask["dlopen"], flask["create-namespace"], flask["key-epoch"]) == (2 << 30, 2, True, 2)
    assert (other["heap"], other["key-epoch"], other["base"]) == (4096, 3, "python:3.11-slim")


def test_names_of_files_are_seen_from_the_project_file(tmp_path):
    other = load_project(written(tmp_path, GOOD)).images["other"]
    assert other["template"] == str(tmp_path / "policy.yml")
    assert other["from"] == f"dir:{tmp_path}/rootfs"
    assert other["to"] == f"oci:{tmp_path}/out:tag"


@pytest.mark.parametrize(
    ("text", "where", "part"),
    [
        (image("hep: 1G"), ":5:", "did you mean 'heap'?"),
        (image("--heap: 1G"), ":5:", "did you mean 'heap'?"),
        (image("state: /x"), ":5:", "belongs to the machine"),
        (image("heap: 1.5G"), ":5:", "images.a.heap"),
        (image("heap: 1.5"), ":5:", "images.a.heap"),
        (image("dlopen: 3"), ":5:", "0 | 1 | 2"),
        (image("binary-fs: yes"), ":5:", "true or false"),
        (image("binary-fs: 'true'"), ":5:", "true or false"),
        (image("dir: app"), ":5:", "absolute"),
        (image("dir: [/a, [/b]]"), ":5:", "must be text"),
        (image("dir:"), ":5:", "must be text"),
        (image("heap: [1G]"), ":5:", "must be text"),
        (image("name: 2024"), ":5:", "quotes"),
        (image("heap: 1G\n    heap: 2G"), ":6:", "second time"),
        (image("env: ['=x']"), ":5:", "NAME=VALUE"),
        ("version: 1\nproject: p\nimages: {}\n", ":3:", "empty"),
        ("version: 1\nproject: p\n", ":1:", "images"),
        ("version: 2\nproject: p\nimages: {a: {}}\n", ":1:", "version: 1"),
        ("version: 1\nproject: ../p\nimages: {a: {}}\n", ":2:", "project"),
        ("version: 1\nproject: p\nimages: {a/b: {}}\n", ":3:", "a/b"),
        ("version: 1\nproject: p\nkey-epoch: -1\nimages: {a: {}}\n", ":3:", "key-epoch"),
        ("version: 1\nproject: p\nimage: {a: {}}\nimages: {a: {}}\n", ":3:", "'images'"),
        ("version: 1\n---\nversion: 1\n", ":2:", "more than one"),
        ("version: 1\nproject: !!python/object/apply:os.system [true]\n", ":2:", "tag"),
        ("version: 1\nproject: [\n", ":3:", "not YAML"),
        ("- a\n", ":1:", "mapping"),
        ("", ":1:", "version"),
        (b"version: 1\nproject: \xff\n", ":2:", "UTF-8"),
        (b"version: 1\0\n", ":", "not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, where, part):
    message = refused(tmp_path, text)
    assert message.startswith(where)
    assert part in message


def test_a_secret_value_is_not_repeated(tmp_path):
    assert "hunter2" not in refused(tmp_path, image("env: ['=hunter2']"))


def test_aliases_share_options_but_can_not_multiply(tmp_path):
    text = "version: 1\nproject: p\ndefaults: {dir: &d [/a, /b]}\nimages: {a: {plain: *d}}\n"
    assert load_project(written(tmp_path, text)).images["a"]["plain"] == ("/a", "/b")
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert "aliases written out" in refused(tmp_path, bomb)
    assert "has no anchor" in refused(tmp_path, "a: &a [*a]\n")


@pytest.mark.parametrize(
    "text", ["[" * 500_000, "{a: " * 100_000, "- " * 300_000, "x: " + "y" * (1 << 20)], ids=["list", "map", "items", "size"]
)
def test_deep_and_large_files_are_refused(tmp_path, text):
    refused(tmp_path, text)


def test_a_file_that_can_not_be_read_is_a_clear_error(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        load_project(tmp_path / "sconify.yaml")


def test_the_project_is_found_from_a_folder_below(tmp_path):
    path = written(tmp_path, GOOD)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_project(below) == Found(root=path, nearest=path)
    (tmp_path / "elsewhere").mkdir()
    path.unlink()
    with pytest.raises(UsageError, match=r"no sconify\.yaml"):
        find_project(tmp_path / "elsewhere")


def test_the_schema_is_one_and_takes_the_documented_example(tmp_path):
    jsonschema.Draft202012Validator.check_schema(project_schema())
    page = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
    example = page.split("## sconify.yaml")[1].split("```yaml\n")[1].split("```")[0]
    assert schema_takes(example)
    assert load_project(written(tmp_path, example)).images["flask"]["heap"] == 2 << 30
    assert schema_takes(GOOD)
    inherited = page.split("### What an image is given")[1].split("```yaml\n")[1].split("```")[0]
    assert schema_takes("version: 1\n" + inherited)
    assert load_project(written(tmp_path, "version: 1\nproject: p\n" + inherited)).images["api"]["dir"] == ("/app", "/tls")


def test_the_documented_example_of_many_files_is_one_project(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
    block = page.split("### Many files")[1].split("```yaml\n")[1].split("```")[0]
    columns = [(line[:43].rstrip(), line[43:].rstrip()) for line in block.splitlines()]
    (tmp_path / "services" / "api").mkdir(parents=True)
    root, part = ("\n".join(column) + "\n" for column in zip(*columns, strict=True))
    (tmp_path / "services" / "api" / "sconify.yaml").write_text(part)
    assert part.startswith("# services/api/sconify.yaml\nversion: 1\n")
    image = load_project(written(tmp_path, root)).images["api"]
    assert (image["base"], image["dir"], image["binary"]) == ("debian:12", ("/app",), "/bin/api")
    assert schema_takes(root)
    assert schema_takes(part)


VALUES = [
    *(
        "",
        "~",
        "true",
        "yes",
        "0",
        "1",
        "2",
        "-1",
        "80",
        "70000",
        "1.5",
        "1G",
        "4096",
        "0x10",
        "/a",
        "/a/..",
        "a",
        "'1'",
        "'true'",
    ),
    *("[]", "[/a, /b]", "[1]", "{}", "{a: b}", "A=1", "[A=1, B]", "'=x'", "https://x.y", "http://x", "v:/v", "job", "trace"),
    *("null", "${UNSET:-1G}", "${UNSET:-true}", "'${UNSET:-/a}'", "['${UNSET:-/a}', /b]", "$$", "$", "${UNSET}"),
    *("linux/amd64", "embedded", "ab" * 32, "1" * 64, "a b", "a/b", "..", "host:80", "host:x", "'a\nb'", '"a\\nb"', '"\\0"'),
]


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.yaml], ids=lambda option: option.name)
def test_what_the_schema_refuses_the_loader_refuses_too(tmp_path, option):
    keys = [option.name, *([f"{option.name}+"] if option.repeat else [])]
    for key, value in itertools.product(keys, VALUES):
        text = image(f"{key}: {value}")
        try:
            load_project(written(tmp_path, text))
        except UsageError:
            continue
        assert schema_takes(text), value


@pytest.mark.parametrize(
    "bad",
    [
        "version: 2\nproject: p\nimages: {a: {}}",
        "version: 1\nproject: p",
        "version: 1\nkey-epoch: 1\nimages: {a: {}}",
        "version: 1\nproject: p\nimages: {}",
        "version: 1\nproject: p\ninclude: /etc/x",
        "version: 1\nproject: p\ntemplates: {t: {hep: 1}}\nimages: {a: {}}",
        "version: 1\nproject: p\ndefaults: {extends: t}\ntemplates: {t: {}}\nimages: {a: {}}",
        image("heap+: 1"),
        image("hep: 1"),
        image("state: x"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(tmp_path, bad):
    refused(tmp_path, bad)
    assert not schema_takes(bad)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.one_of(
        st.text(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from(["version", "project", "images", "a", "heap", "dir"]), inner)
            ),
            max_leaves=8,
        ).map(json.dumps),
    )
)
def test_no_text_does_anything_but_load_or_raise_a_usage_error(tmp_path, text):
    with contextlib.suppress(UsageError):
        load_project(written(tmp_path, text.encode(errors="surrogatepass")))
