"""What changed between two runs of a step, in words."""

from sconify_cache.explain import diff
from sconify_cache.keys import Action


def test_equal_components_differ_in_nothing():
    assert diff({"a": {"b": [1]}}, {"a": {"b": (1,)}}) == ()


def test_changed_new_and_gone_components_are_named():
    old = Action(
        step="sign", version=1, inputs={"elf": "a" * 64, "old": "b" * 64}, options={"heap": 1, "dlopen": 1, "env": "x" * 99}
    )
    new = Action(
        step="sign", version=2, inputs={"elf": "c" * 64, "new": "b" * 64}, options={"heap": 2, "dlopen": True, "env": "y"}
    )
    assert diff(old.components, new.components) == (
        "inputs.elf changed",
        "inputs.new is new",
        "inputs.old is gone",
        "options.dlopen: 1 -> true",
        "options.env changed",
        "options.heap: 1 -> 2",
        "version: 1 -> 2",
    )


def test_keyed_ids_of_secrets_and_image_digests_are_not_shown():
    old, new = {"password": "0" * 64, "base": "sha256:" + "1" * 64}, {"password": "f" * 64, "base": "sha256:" + "2" * 64}
    assert diff(old, new) == ("base changed", "password changed")


def test_an_emptied_object_shows():
    assert diff({"options": {"a": 1}}, {"options": {}}) == ("options is new", "options.a is gone")
