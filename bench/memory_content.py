# SPDX-License-Identifier: GPL-2.0-or-later
"""Content of a measured arena: random bytes, text-like bytes, or allocated pages of zeros."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from livedumpfs.units import PAGE_SIZE

RANDOM, COMPRESSIBLE, ZERO = "random", "compressible", "zero"
CONTENTS = (RANDOM, COMPRESSIBLE, ZERO)
_PIECE = 64 << 20
_SEED = 20261123


def fill(memory: npt.NDArray[np.uint8], content: str) -> None:
    """Fill the memory; every page is allocated afterwards. The bytes are the same each time."""
    rng = np.random.default_rng(_SEED)
    for start in range(0, len(memory), _PIECE):
        piece = memory[start : start + _PIECE]
        if content == ZERO:
            piece[:] = 0
            continue
        piece[:] = rng.integers(0, 256, len(piece), dtype=np.uint8)
        if content == COMPRESSIBLE:
            # The first quarter of a page stays random; the rest is a counter.
            pages = piece.reshape(-1, PAGE_SIZE)[:, PAGE_SIZE // 4 :].view(np.uint64)
            pages[:] = np.arange(pages.shape[1], dtype=np.uint64)
