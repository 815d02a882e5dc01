# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading chunks back, each once, whichever dumps they belong to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.stores.caibx import Index
from livedumpfs.stores.chunk import Digest
from livedumpfs.stores.chunks import Chunks, Needed
from livedumpfs.thread import needing_threads

THREADS: Final = 8
_BATCH: Final = 64
OnChunks = Callable[[int, int], None]
"""on_chunks(chunks read, chunks to read); called from one thread at a time."""


@dataclass
class ChunkCheck:
    """What reading them showed."""

    right: int = 0
    size: int = 0
    """Bytes of the right ones, not compressed."""
    wrong: dict[bytes, str] = field(default_factory=dict)
    """Ids of those that are damaged, missing or cannot be read, and why."""


def needed_by(indexes: Iterable[Index]) -> dict[bytes, tuple[int, Digest]]:
    """The chunks of all these images, each once."""
    found: dict[bytes, tuple[int, Digest]] = {}
    for index in indexes:
        for identity in index.unique():
            most, _ = found.get(identity, (0, index.digest))
            found[identity] = (max(most, index.sizes[2]), index.digest)
    return found


def check_chunks(chunks: Chunks, needed: Needed, on_chunks: OnChunks | None = None) -> ChunkCheck:
    """Read each of them. Failures of the store are in the result, too. MachineError EAGAIN: there
    are no threads."""
    found = ChunkCheck()
    lock = threading.Lock()

    def check(identities: list[bytes]) -> None:
        for identity in identities:
            most, digest = needed[identity]
            size, why = 0, ""
            try:
                size = len(chunks.get(identity, most, digest))
            except (InvalidDump, TargetError) as error:
                why = error.message
            with lock:
                if why:
                    found.wrong[identity] = why
                else:
                    found.right += 1
                    found.size += size
                if on_chunks:
                    on_chunks(found.right + len(found.wrong), len(needed))

    every = list(needed)
    with ThreadPoolExecutor(THREADS, "livedump-check") as pool:
        with needing_threads("read the store"):
            work = [
                pool.submit(check, every[at : at + _BATCH]) for at in range(0, len(every), _BATCH)
            ]
        try:
            for one in work:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found
