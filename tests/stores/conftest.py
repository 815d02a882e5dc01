# SPDX-License-Identifier: GPL-2.0-or-later
"""What most tests of stores start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.stores import Store, create_store
from tests.fixtures.written_dumps import DumpWriter
from tests.stores.stored_dumps import CHUNK, MACHINE, MEMORY
from tests.stores.tracked_memory import TrackedMemory


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new one, empty."""
    with create_store(str(tmp_path / "store")) as made:
        yield made


@pytest.fixture
def dump(tmp_path: Path, write_dump: DumpWriter) -> Path:
    """The small dump."""
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE)
    return tmp_path / "dump"


@pytest.fixture
def tracked(tmp_path: Path) -> Iterator[TrackedMemory]:
    """A new one."""
    made = TrackedMemory(tmp_path / "tracked")
    yield made
    made.close()
