"""Images that are made from images: whose `from` or `base` is another one's `to`. Pure; nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from sconify_tasks.errors import UsageError
from sconify_tasks.image.references import parse_reference, split_archive, split_layout
from sconify_tasks.options import Options

_SOURCES = ("from", "base")
_ELSEWHERE = ("dir:", "registry:")
_OCI_FILE, _DOCKER_FILE = "oci-archive:", "docker-archive:"
Place = tuple[str, ...]


def upstream_images(images: Mapping[str, Options]) -> dict[str, tuple[str, ...]]:
    """For each image that is made from others: their names, in the order of `images`.

    `oci:DIR` without a tag means every image that is written to DIR. UsageError names a circle, whoever is in it.
    """
    makers: dict[Place, list[str]] = {}
    for name, options in images.items():
        place = delivered_to(options.text("to"))
        if place:
            makers.setdefault(place, []).append(name)
            if place[0] == "oci":
                makers.setdefault(("oci", place[1], ""), []).append(name)
    found: dict[str, tuple[str, ...]] = {}
    for name, options in images.items():
        places = {_place(options.text(option)) for option in _SOURCES}
        needs = {maker for place in places if place for maker in makers.get(place, ())}
        if needs:
            found[name] = tuple(each for each in images if each in needs)
    in_order(found, found)
    return found


def in_order(chosen: Iterable[str], upstream: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the chosen images and all that they are made from, each after those. Else in the order given.

    UsageError names the circle where images are made from each other.
    """
    done: dict[str, None] = {}
    for first in chosen:
        path = {first: iter(upstream.get(first, ()))} if first not in done else {}
        while path:
            name = next(reversed(path))
            below = next(path[name], None)
            if below is None:
                done[name] = None
                path.popitem()
            elif below in path:
                circle = [*path][[*path].index(below) :]
                raise UsageError(
                    f"images are made from each other in a circle: {' <- '.join([*circle, below])}",
                    hint="the `from` or `base` of one of them must be an image that is there already",
                )
            elif below not in done:
                path[below] = iter(upstream.get(below, ()))
    return list(done)


def delivered_to(name: str) -> Place | None:
    """Where an image with this `to` is written, so that equal places compare equal however they are spelled."""
    return _place(name, default_tag="latest")


def _place(name: str, default_tag: str = "") -> Place | None:
    """Where an image is, so that equal places compare equal; None for what no image is ever written to, or no name at all."""
    if name == "scratch" or name.startswith(_ELSEWHERE):
        return None
    try:
        # An archive holds one image, whatever it is called there: two can't be delivered to one file.
        if name.startswith(_OCI_FILE):
            return ("file", os.path.normpath(split_layout(name.removeprefix(_OCI_FILE), "oci-archive")[0]))
        if name.startswith(_DOCKER_FILE):
            return ("file", os.path.normpath(split_archive(name.removeprefix(_DOCKER_FILE))[0]))
        if name.startswith("oci:"):
            folder, tag = split_layout(name.removeprefix("oci:"))
            return ("oci", os.path.normpath(folder), tag or default_tag)
        return ("", str(parse_reference(name.removeprefix("docker:"))))
    except UsageError:
        return None  # said by whoever opens it
