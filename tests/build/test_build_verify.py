"""The finished image is reopened: what was to be protected is, or the build fails; what the base publishes is reported."""

from __future__ import annotations

from dataclasses import replace

import pytest
from build.small_image import OTHER, SECRET, Recorder, compile_program, convert, make_native, order_for, world_of
from parts.images import built, file, folder, layer

from sconify_dodo.front import make_build
from sconify_tasks.errors import VerificationError
from sconify_tasks.graph import STEPS
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink_oci import OciSink
from sconify_tasks.layers import store_layer

VERIFY = next(step for step in STEPS if step.name == "verify")


@pytest.fixture
def verify(native, place):
    """Run the last check on a finished image, with one of its layers exchanged."""
    assert convert(native, place).code == 0
    with world_of(place, Recorder()) as world:
        build = make_build(world, order_for(native, place))
        assert build.plan() == ()

        def run(step: str, *items):
            made = store_layer(world.store, items)
            outputs = build.settled[step]
            build.settled[step] = replace(
                outputs, blobs={**outputs.blobs, "layer": made.blob}, facts={**outputs.facts, "layer_facts": made.facts()}
            )
            return VERIFY.run(build._context(VERIFY))

        yield run
        build.close()


def test_a_copy_of_a_protected_file_in_a_layer_of_ours_fails_the_build(verify):
    with pytest.raises(VerificationError, match=r"/somewhere/else in layer sha256:.* has the content of a protected file"):
        verify("copy", file(b"/somewhere/else", SECRET))


def test_a_large_copy_is_found_like_a_small_one(verify):
    with pytest.raises(VerificationError, match="has the content of a protected file"):
        verify("copy", file(b"/x", OTHER))


def test_a_readable_file_at_a_protected_path_fails_the_build(verify):
    with pytest.raises(VerificationError, match="/app/secret"):
        verify("copy", file(b"/app/secret", b"something else that anybody can read"))


def test_a_protected_file_that_is_in_no_layer_fails_the_build(verify):
    with pytest.raises(VerificationError, match="missing in the layers"):
        verify("encrypt", folder(b"/app"))


def test_ciphertext_that_is_not_what_the_manifest_says_fails_the_build(verify):
    with pytest.raises(VerificationError):
        verify("encrypt", (Entry(path=b"/app/secret", kind=Kind.FILE, size=len(SECRET) + 16), bytes(len(SECRET) + 16)))


def base_with(tmp_path, content: bytes) -> str:
    OciSink(tmp_path / "base").deliver(built(layer(tmp_path / "layers", file(b"/pub", content))), ScratchSource(), "1")
    return f"oci:{tmp_path / 'base'}:1"


def test_protected_content_that_the_base_publishes_anyway_is_counted_and_reported(native, place, tmp_path):
    ended = convert(native, place, base=base_with(tmp_path, SECRET))

    assert ended.code == 0
    assert [warning for warning in ended.warnings if "publishes 1 of the protected files" in warning]


def test_a_base_that_publishes_nothing_is_not_spoken_of(native, place, tmp_path):
    ended = convert(native, place, base=base_with(tmp_path, b"of the base's own"))

    assert ended.code == 0
    assert not [warning for warning in ended.warnings if "publishes" in warning]


def test_a_base_with_a_file_of_its_own_in_a_protected_directory_is_refused(native, place, tmp_path):
    OciSink(tmp_path / "base").deliver(
        built(layer(tmp_path / "layers", folder(b"/app"), file(b"/app/base", b"x"))), ScratchSource(), "1"
    )

    ended = convert(native, place, base=f"oci:{tmp_path / 'base'}:1")

    assert ended.code == 2
    assert "/app/base" in ended.failures["manifest"]


def test_a_program_that_is_not_pie_is_converted_with_one_warning(place, tmp_path, need):
    program = compile_program(need("gcc"), tmp_path / "program", "-static", "-no-pie")

    ended = convert(make_native(tmp_path / "native", program), place, disable_pie_check=False)

    assert ended.code == 0
    assert len([warning for warning in ended.warnings if "not a position-independent executable" in warning]) == 1
