# SPDX-License-Identifier: GPL-2.0-or-later
"""How arrays are cut into pieces: each element is in one, and each piece is one range of bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.named import cut as cut_module
from livedumpfs.named.cut import CHUNK, Cut

shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)


@settings(max_examples=200, deadline=None)
@given(shape=shapes, itemsize=st.integers(1, 9), chunk=st.integers(1, 300), sharded=st.booleans())
def test_each_piece_is_one_range(
    shape: tuple[int, ...], itemsize: int, chunk: int, sharded: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut_module, "CHUNK", chunk)
        cut = Cut.of(shape, itemsize, sharded=sharded)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    at = 0
    for piece in cut.pieces():
        assert piece.offset == at
        first = at // itemsize
        found = numbers[piece.region].reshape(-1).tolist()
        assert found == list(range(first, first + piece.length // itemsize))
        assert piece.shape == numbers[piece.region].shape
        at += piece.length
    assert at == math.prod(shape) * itemsize
    assert all(one >= 1 for one in cut.piece)
    assert all(a % b == 0 for a, b in zip(cut.piece, cut.chunk, strict=True))
    assert math.prod(cut.chunk) * itemsize <= max(chunk, itemsize, math.prod(cut.chunk[-1:]) * 9)


def test_usual_sizes() -> None:
    whole = Cut.of((100, 100), 8, sharded=True)
    assert (whole.chunk, whole.shard) == ((100, 100), None)
    rows = Cut.of((10000, 10000), 8, sharded=True)
    assert (rows.chunk, rows.shard) == ((52, 10000), (208, 10000))
    assert Cut.of((10000, 10000), 8, sharded=False).shard is None
    assert Cut.of((2, CHUNK), 8, sharded=True).chunk == (1, CHUNK // 8)
    assert Cut.of((), 8, sharded=True).chunk == ()
