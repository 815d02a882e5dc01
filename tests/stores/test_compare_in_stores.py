# SPDX-License-Identifier: GPL-2.0-or-later
"""compare of any two dumps in stores says what compare of the files says."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.dumpfile import compare_dumps, open_dump
from livedumpfs.formats import MachineInfo, MemoryRange
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED
from livedumpfs.stores import create_store
from tests.fixtures.small_stores import keep_file
from tests.fixtures.written_dumps import DumpWriter

PAGE = 4096
UNIT = 8
"""Pages that are of one sort; half a chunk."""
EXAMPLES = int(os.environ.get("LIVEDUMP_FUZZ_EXAMPLES", "25"))

sorts = st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=3, max_size=12)
states = st.lists(st.sampled_from([SAVED, SAVED, SAVED, HOLE, LOST, ARMED]), min_size=96)


def memory_of(sorts: Sequence[int]) -> bytes:
    return b"".join(bytes([sort]) * PAGE * UNIT for sort in sorts)


@given(
    sorts, sorts, states, states,
    st.sampled_from([PAGE, 4 * PAGE, 16 * PAGE]), st.sampled_from([PAGE, 16 * PAGE]),
    st.integers(0, 20),
)  # fmt: skip
@settings(max_examples=EXAMPLES)
def test_as_of_files(
    write_dump: DumpWriter,
    one: list[int],
    other: list[int],
    states_a: list[int],
    states_b: list[int],
    granule_a: int,
    granule_b: int,
    gap: int,
) -> None:
    """Of machines with more or less memory, in other places, in granules of other sizes; holes that
    are none on the target are compared as the tables say."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with create_store(f"{folder}/store") as store:
            for name, kinds, found, granule, start in (
                ("a", one, states_a, granule_a, 0),
                ("b", other, states_b, granule_b, gap * PAGE),
            ):
                memory = memory_of(kinds)
                machine = MachineInfo(
                    "m", vcpus=1, memory_map=(MemoryRange(start, len(memory), 0),)
                )
                write_dump(
                    place / name, memory, granule=granule, machine=machine, verdict="torn",
                    states=found[: -(-len(memory) // granule)],
                )  # fmt: skip
                keep_file(store, place / name, name)
        pairs = [("a", "b"), ("store#a", "store#b"), ("a", "store#b"), ("store#a", "store#a")]
        found_of = {}
        for pair in pairs:
            with open_dump(place / pair[0]) as a, open_dump(place / pair[1]) as b:
                found_of[pair] = compare_dumps(a, b)
        assert found_of[pairs[1]] == found_of[pairs[0]] == found_of[pairs[2]]
        assert not found_of[pairs[3]].pages[1]
