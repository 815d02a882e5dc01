# SPDX-License-Identifier: GPL-2.0-or-later
"""Backend `auto`: sigsegv, or sigbus where START by sigsegv would be refused; the dump says
which."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import MachineError
from tests.fixtures.program_files import program_command

SIZE = 8 << 20
AUTO = DumpSettings(backend="auto", force=True)


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena(SIZE) as arena:
        arena.live[:] = 1
        yield arena


def taken(live: LiveDump, target: Path, settings: DumpSettings = AUTO) -> str:
    """The backend that a dump says it had."""
    live.save(target, settings)
    assert live.verdict == "consistent"
    with open_dump(target) as dump:
        return str(dump.meta["backend"]).split()[0]


@contextmanager
def a_thread_blocks(*signals: signal.Signals) -> Iterator[None]:
    blocks, may_end = threading.Event(), threading.Event()

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        blocks.set()
        may_end.wait()

    thread = threading.Thread(target=block)
    thread.start()
    try:
        assert blocks.wait(300)
        yield
    finally:
        may_end.set()
        thread.join()


def test_it_is_the_default_and_the_dump_says_which_it_was(arena: Arena, tmp_path: Path) -> None:
    with LiveDump(arena) as live:
        assert taken(live, tmp_path / "dump", DumpSettings()) == "SIGSEGV"
        assert live.settings.backend == "sigsegv"


def test_where_sigsegv_would_be_refused_it_is_sigbus(arena: Arena, tmp_path: Path) -> None:
    with LiveDump(arena) as live:
        assert taken(live, tmp_path / "dump") == "SIGSEGV"
        with a_thread_blocks(signal.SIGSEGV):
            assert taken(live, tmp_path / "dump") == "SIGBUS"
        assert taken(live, tmp_path / "dump") == "SIGSEGV"


def test_where_both_would_be_refused_it_says_why(arena: Arena, tmp_path: Path) -> None:
    refused = pytest.raises(MachineError, match="SIGSEGV")
    with LiveDump(arena) as live, a_thread_blocks(signal.SIGSEGV, signal.SIGBUS), refused:
        taken(live, tmp_path / "dump")


def test_init_falls_back_to_sigsegv() -> None:
    """With one descriptor after the other: none is enough, then sigsegv is, then sigbus."""
    words = program_command(__file__, "scarce_descriptors.py")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(done.stdout)
    assert list(dict.fromkeys(found)) == ["none", "sigsegv", "sigbus"], found
