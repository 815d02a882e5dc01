# SPDX-License-Identifier: GPL-2.0-or-later
"""Backend `auto`: sigbus where it measures better and can be had, else sigsegv; the dump says
which."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump
from livedumpfs.machines import machine as rules
from tests.fixtures.program_files import program_command

SIZE = 8 << 20
AUTO = DumpSettings(backend="auto", force=True)


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena(SIZE) as arena:
        arena.live[:] = 1
        yield arena


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with many processors."""
    monkeypatch.setattr(rules, "_processors", lambda: 16)


def taken(live: LiveDump, target: Path, settings: DumpSettings = AUTO) -> str:
    """The backend that a dump says it had."""
    live.save(target, settings)
    assert live.verdict == "consistent"
    with open_dump(target) as dump:
        return str(dump.meta["backend"]).split()[0]


def test_it_is_the_default_and_the_dump_says_which_it_was(arena: Arena, tmp_path: Path) -> None:
    with LiveDump(arena) as live:
        assert taken(live, tmp_path / "dump", DumpSettings()) == "SIGBUS"
        assert live.settings.backend == "sigbus"


def test_few_processors(arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_processors", lambda: 2)
    with LiveDump(arena) as live:
        assert taken(live, tmp_path / "dump") == "SIGSEGV"


def test_memory_that_is_mostly_holes(tmp_path: Path) -> None:
    """Page tables for them would be wanted."""
    with Arena(SIZE) as arena, LiveDump(arena) as live:
        arena.live[:4096] = 1
        assert taken(live, tmp_path / "dump") == "SIGSEGV"
        arena.live[:] = 1
        assert taken(live, tmp_path / "dump") == "SIGBUS"


def test_a_thread_that_blocks_the_signal_ends_it_for_good(arena: Arena, tmp_path: Path) -> None:
    """Each change costs the page tables that are kept."""
    blocks, may_end = threading.Event(), threading.Event()

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGBUS})
        blocks.set()
        may_end.wait()

    with LiveDump(arena) as live:
        assert taken(live, tmp_path / "dump") == "SIGBUS"
        thread = threading.Thread(target=block)
        thread.start()
        try:
            assert blocks.wait(300)
            assert taken(live, tmp_path / "dump") == "SIGSEGV"
        finally:
            may_end.set()
            thread.join()
        assert taken(live, tmp_path / "dump") == "SIGSEGV"


def test_init_falls_back_to_sigsegv() -> None:
    """With one descriptor after the other: none is enough, then sigsegv is, then sigbus."""
    words = program_command(__file__, "scarce_descriptors.py")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=300, check=True, env=environment
    )
    found = json.loads(done.stdout)
    assert list(dict.fromkeys(found)) == ["none", "sigsegv", "sigbus"], found
