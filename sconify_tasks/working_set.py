"""How much memory a step will need, told beforehand from the sizes of what it has in memory at once.

Most steps stream: files, layers and binaries go by in pieces, whatever their size. What grows is trees: the objects of an
entry take some twenty times the bytes that it is stored in (10,000 files, 0.9 MB: `files` 18 MB, `embedded` 34, `encrypt` 9).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from sconify_cache.digest import Digest
from sconify_cache.store import MissingBlobError
from sconify_tasks.step import Context, Step

HEAVY: Final = 32 << 20
"""What a heavy step takes beside its trees: the buffers of one pass, and the modules that it loads."""
_TIMES: Final = 40


def working_set(step: Step, context: Context) -> int:
    """Bytes, an upper estimate; 0 for a step that is not heavy. A tree that nobody has seen yet counts for nothing."""
    if not step.whole:
        return 0
    previous = {} if context.previous is None else context.previous.blobs
    total = HEAVY
    for name in step.whole:
        tree = context.inputs[name] if name in context.inputs else previous.get(name)
        if isinstance(tree, Digest):
            with suppress(MissingBlobError):  # said when it is read
                total += _TIMES * context.world.store.size(tree)
    return total
