# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes of multiprocessing that are no forks read an arena's arrays. Forks: test_forks.py."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from livedumpfs import Arena
from livedumpfs.errors import UsageError
from tests.fixtures.program_files import program_command


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_reads_the_memory_as_it_is(method: str) -> None:
    command = program_command(__file__, "shared_arrays.py", method)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", ""), done


def test_only_an_array_of_the_arena_is_shared() -> None:
    with Arena("64KiB") as arena:
        with pytest.raises(UsageError, match=r"not lie in the arena \(from_array copies it\)"):
            arena.shared(np.zeros(3))
        with pytest.raises(UsageError, match="no single piece of memory"):
            arena.shared(arena.zeros((4, 4))[:, 1])
