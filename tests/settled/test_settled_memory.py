"""What is noted of a place counts for that place alone."""

from sconify_tasks.settled.memory import Memory, load_memory, memory_file, save_memory

KEY = bytes(range(32))


def test_what_is_noted_of_one_place_says_nothing_at_another(tmp_path):
    here, there = (memory_file(tmp_path, KEY, [place]) for place in ("/here", "/there"))
    save_memory(here, KEY, Memory(program="p"))
    assert load_memory(here, KEY, "p") is not None
    here.rename(there)
    assert load_memory(there, KEY, "p") is None
    there.rename(here)
    assert load_memory(here, KEY, "p") is not None
