"""Which images are made from which: places compared, order, circles. Nothing is opened."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify_tasks.chains import in_order, upstream_images
from sconify_tasks.errors import UsageError
from sconify_tasks.options import Options


def images(**given):
    return {name: Options.of({"base": "scratch", "from": "dir:/n"} | options) for name, options in given.items()}


@pytest.mark.parametrize(
    ("to", "source"),
    [
        ("app:1", "app:1"),
        ("app", "docker:app:latest"),
        ("docker:shop/app:1", "docker.io/shop/app:1"),
        ("oci:/a/out:1", "oci:/a/out:1"),
        ("oci:/a/out", "oci:/a/out:latest"),
        ("oci:/a/out:1", "oci:/a/out"),
        ("oci:/a/b/../out:1", "oci:/a//out:1"),
        ("oci-archive:/a/x.tar", "oci-archive:/a/./x.tar"),
        ("oci-archive:/a/x.tar:1", "oci-archive:/a/x.tar"),
        ("oci-archive:/a/x.tar", "oci-archive:/a/x.tar:latest"),
        ("docker-archive:/a/x.tar:app:1", "docker-archive:/a/x.tar"),
        ("docker-archive:/a/x.tar:app:1", "docker-archive:/a/../a/x.tar:docker.io/library/app:1"),
    ],
)
@pytest.mark.parametrize("option", ["from", "base"])
def test_an_image_is_made_from_the_one_that_is_written_there(to, source, option):
    assert upstream_images(images(b={"to": "b", option: source}, a={"to": to})) == {"b": ("a",)}


@pytest.mark.parametrize(
    ("to", "source"),
    [("app:1", "app:2"), ("app:1", "app@sha256:" + "0" * 64), ("oci:/a/out:1", "oci:/a/out:2"), ("oci:/a:1", "dir:/a"), ("A:", "A:"), ("a", "scratch"), ("oci-archive:/a.tar:1", "oci-archive:/b.tar:1"), ("oci-archive:/a.tar", "oci:/a.tar"), ("docker-archive:/a:c", "c")],
)  # fmt: skip
def test_other_places_are_other_images(to, source):
    assert upstream_images(images(b={"to": "b", "from": source}, a={"to": to})) == {}


def test_a_layout_named_without_a_tag_means_all_that_is_written_to_it():
    found = images(c={"to": "c", "from": "oci:/a"}, b={"to": "oci:/a:2"}, a={"to": "oci:/a:1"}, d={"to": "oci:/b:1"})
    assert upstream_images(found) == {"c": ("b", "a")}


def test_what_an_image_is_made_from_comes_along_and_comes_first():
    upstream = {"c": ("b",), "b": ("a",), "e": ("a", "d")}
    assert in_order(["c"], upstream) == ["a", "b", "c"]
    assert in_order(["e", "x", "c"], upstream) == ["a", "d", "e", "x", "b", "c"]


def test_a_circle_is_named_and_long_chains_are_none():
    for upstream, circle in (
        ({"a": ("a",)}, "a <- a"),
        ({"a": ("b",), "b": ("c",), "c": ("b",)}, "b <- c <- b"),
    ):
        with pytest.raises(UsageError, match=circle):
            in_order(["a"], upstream)
    long = {str(number): (str(number + 1),) for number in range(20_000)}
    assert in_order(["0"], long)[:2] == ["20000", "19999"]


@given(st.dictionaries(st.integers(1, 12), st.sets(st.integers(0, 11), max_size=4)), st.lists(st.integers(0, 12), max_size=6))
def test_the_order_holds_for_any_graph_without_circles(edges, chosen):
    upstream = {str(name): tuple(str(each) for each in sorted(needs) if each < name) for name, needs in edges.items()}
    order = in_order([str(each) for each in chosen], upstream)
    assert len(order) == len(set(order))
    assert {str(each) for each in chosen} <= set(order)
    for at, name in enumerate(order):
        assert set(upstream.get(name, ())) <= set(order[:at])
