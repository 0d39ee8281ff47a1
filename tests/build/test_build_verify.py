"""The finished image is reopened: what was to be protected is, or the build fails; what the base publishes is reported."""

from __future__ import annotations

import pytest
from build.small_image import OTHER, PLAIN, SECRET, Recorder, compile_program, convert, make_native, order_for, world_of, write
from msgspec.structs import replace
from parts.images import built, file, folder, layer

from sconify_cache.keys import content_id
from sconify_dodo.front import make_build
from sconify_tasks.errors import SconifyError, VerificationError
from sconify_tasks.events import StepFinished
from sconify_tasks.graph import STEPS
from sconify_tasks.image.entry import Entry, Kind
from sconify_tasks.image.scratch import ScratchSource
from sconify_tasks.image.sink_oci import OciSink
from sconify_tasks.image.tar_write import BLOCK
from sconify_tasks.layers import store_layer
from sconify_tasks.steps import verify as verify_room

VERIFY = next(step for step in STEPS if step.name == "verify")


def protect(world, build, content: bytes) -> None:
    """Have a file with this content in the tree of what is protected, under the path of another one."""
    outputs = build.settled["files"]
    known = content_id(world.keys.content_id_key(), content)
    entries = {entry.path: entry for entry in world.trees.get(outputs.blobs["secret"])}
    taken = entries[b"/app/secret"]
    entries[taken.path] = replace(taken, meta=replace(taken.meta, size=len(content)), content=bytes.fromhex(known))
    build.settled["files"] = replace(outputs, blobs={**outputs.blobs, "secret": world.trees.put(entries.values())})


@pytest.fixture
def verify(native, place):
    """Run the last check on a finished image, with one of its layers exchanged."""
    assert convert(native, place).code == 0
    with world_of(place, Recorder()) as world:
        build = make_build(world, order_for(native, place))
        assert build.plan() == ()

        def run(step: str, *items, watch: bytes = b""):
            made = store_layer(world.store, items)
            outputs = build.settled[step]
            build.settled[step] = replace(
                outputs, blobs={**outputs.blobs, "layer": made.blob}, facts={**outputs.facts, "layer_facts": made.facts()}
            )
            if watch:
                protect(world, build, watch)
            return VERIFY.run(build.context(VERIFY))

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
    assert len([warning for warning in ended.warnings if "position-independent executable" in warning]) == 1


def searched(native, place) -> tuple[int, int]:
    """How many layers a build searched, and how many it found verified before."""
    ended = convert(native, place)
    assert ended.code == 0
    (counts,) = (event.counts for event in ended.events if isinstance(event, StepFinished) and event.step == "verify")
    return counts.get("layers searched", 0), counts.get("layers verified before", 0)


def test_only_layers_that_changed_are_searched_again(native, place):
    assert searched(native, place) == (4, 0)

    write(native / "app" / "secret", b"another text of the protected file\n")

    assert searched(native, place) == (2, 2)  # ciphertext and manifest


def test_a_layer_with_a_file_as_long_as_a_new_protected_one_is_searched_again(native, place):
    assert searched(native, place) == (4, 0)

    write(native / "app" / "new", b"x" * len(PLAIN))

    assert searched(native, place) == (3, 1)


def test_a_layer_that_was_good_before_its_content_was_protected_fails_the_build(verify):
    layer_of_plain = file(b"/x", b"of no interest yet")
    with pytest.raises(VerificationError, match="missing in the layers"):
        verify("encrypt", layer_of_plain)  # that layer itself was searched, and found good

    with pytest.raises(VerificationError, match="has the content of a protected file"):
        verify("encrypt", layer_of_plain, watch=b"of no interest yet")


def test_a_layer_that_was_refused_is_refused_again(verify):
    for _ in range(2):
        with pytest.raises(VerificationError, match="has the content of a protected file"):
            verify("copy", file(b"/x", OTHER))


def passed_over(native, place) -> int:
    """How many members of the layers that a build searched were found good before."""
    ended = convert(native, place)
    assert ended.code == 0
    (counts,) = (event.counts for event in ended.events if isinstance(event, StepFinished) and event.step == "verify")
    return counts.get("members verified before", 0)


def test_of_a_layer_that_changed_only_what_changed_is_checked_again(native, place, monkeypatch):
    for number in range(30):
        write(native / "app" / "many" / f"{number:02}", b"%d " % number * 99)
    assert passed_over(native, place) == 0
    opened: list[bytes] = []
    check = verify_room.verify_stored

    def counting(key, entry, reader):
        opened.append(entry.path)
        check(key, entry, reader)

    monkeypatch.setattr(verify_room, "verify_stored", counting)

    write(native / "app" / "many" / "17", b"another text")
    write(native / "app" / "many" / "170", b"one more")
    (native / "app" / "many" / "05").unlink()

    assert passed_over(native, place) >= 28
    assert opened == [b"/app/many/06", b"/app/many/17", b"/app/many/170"]  # 06 stands where 05 was


def test_a_member_that_was_good_and_has_another_byte_now_fails_the_build(native, place):
    assert convert(native, place).code == 0
    with world_of(place, Recorder()) as world:
        build = make_build(world, order_for(native, place))
        assert build.plan() == ()
        outputs = build.settled["encrypt"]
        tar = bytearray(world.store.get(outputs.blobs["layer"]))
        at = tar.index(b"app/secret\0") + BLOCK  # the first byte of its content
        tar[at] ^= 1
        forged = world.store.put(bytes(tar))
        build.settled["encrypt"] = replace(outputs, blobs={**outputs.blobs, "layer": forged})
        with pytest.raises(VerificationError, match="/app/secret"):
            VERIFY.run(build.context(VERIFY))
        build.close()


def test_a_layer_cut_inside_a_member_that_was_good_fails_the_build(native, place):
    assert convert(native, place).code == 0
    with world_of(place, Recorder()) as world:
        build = make_build(world, order_for(native, place))
        assert build.plan() == ()
        outputs = build.settled["encrypt"]
        tar = world.store.get(outputs.blobs["layer"])
        forged = world.store.put(tar[: tar.index(b"app/secret\0") + BLOCK + 5])
        build.settled["encrypt"] = replace(outputs, blobs={**outputs.blobs, "layer": forged})
        with pytest.raises(SconifyError):
            VERIFY.run(build.context(VERIFY))
        build.close()
