# SPDX-License-Identifier: GPL-2.0-or-later
"""Fleets for tests: hosts whose machines pay each other, clusters in this process and beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.clusters import ByHand, in_process
from tests.fleet.exchangers import Exchangers


@pytest.fixture
def exchangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """exchangers(count, rate=100, group=None, folder=tmp_path) -> Exchangers."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with ExitStack() as running:

        def run(
            count: int, rate: float = 100, group: int | None = None, folder: Path = tmp_path
        ) -> Exchangers:
            return running.enter_context(Exchangers(folder, count, rate, group))

        yield run


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[Callable[..., ByHand]]:
    """by_hand(*hosts of each worker) -> ByHand: `livedump fleet scheduler` and workers."""
    with ExitStack() as running:
        yield lambda *hosts: running.enter_context(ByHand(tmp_path, hosts))


@pytest.fixture
def cluster() -> Iterator[Callable[..., Any]]:
    """cluster(workers, *plugins) -> a client of a cluster in this process."""
    with ExitStack() as running:
        yield lambda workers, *plugins: running.enter_context(in_process(workers, *plugins))
