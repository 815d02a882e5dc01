# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong on the thread that keeps a dump's files: told, whatever its kind."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import Arena, InconsistentDump, LiveDump, open_dump
from livedumpfs.dump.dump_files import DumpFiles
from livedumpfs.errors import MachineError, TargetError
from livedumpfs.formats import VerdictWord

MIB = 1 << 20
ERRORS: tuple[tuple[Exception, int, str], ...] = (
    (OSError(errno.ENOSPC, "whatever"), errno.ENOSPC, "on {target}: No space left on device"),
    (ValueError("too long"), errno.EIO, "on {target}: ValueError: too long"),
    (RuntimeError(), errno.EIO, "on {target}: RuntimeError"),
    (TargetError("cannot sync it", errno=errno.EIO), errno.EIO, "cannot sync it"),
    (MachineError("QEMU has ended", errno=errno.ECONNRESET), errno.ECONNRESET, "QEMU has ended"),
)
STEPS = {"started": "cannot write the header", "seal": "cannot seal the dump"}


@pytest.fixture
def live() -> Iterator[LiveDump]:
    with Arena(4 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        yield live


@pytest.mark.parametrize(("step", "failing"), list(itertools.product(STEPS, ERRORS)))
def test_an_error_of_any_kind_ends_in_a_verdict(
    live: LiveDump,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    failing: tuple[Exception, int, str],
) -> None:
    error, number, words = failing

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(DumpFiles, step, fail)
    target = tmp_path / "dump.incomplete"
    live.init(tmp_path / "dump")
    live.start()
    live.sweep()
    with pytest.raises(InconsistentDump) as caught:
        live.finish(60)
    assert caught.value.errno == number and caught.value.verdict == "incomplete"
    sentence = words.format(target=target)
    if sentence.startswith("on "):
        sentence = f"{STEPS[step]} {sentence}"
    assert live.failure == live.reason == caught.value.failure == sentence
    assert str(caught.value).count(sentence) == 1
    live.release()
    assert (live.verdict, live.reason) == ("incomplete", sentence)
    with open_dump(target) as dump:
        assert dump.verdict == "incomplete"
    monkeypatch.undo()
    assert live.save(tmp_path / "next") == "consistent"


def test_a_core_that_fails_while_it_drains(
    live: LiveDump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.init(tmp_path / "dump")
    live.start()

    def fail(_: float) -> bool:
        raise OSError(errno.ECONNRESET, "reset")

    assert live._run and live._run.core
    monkeypatch.setattr(live._run.core, "wait", fail)
    live.sweep()
    with pytest.raises(
        InconsistentDump, match=r"cannot save the memory on .*/dump.incomplete: Connection"
    ):
        live.finish(60)


def test_a_release_before_the_end_is_told_as_one(live: LiveDump, tmp_path: Path) -> None:
    """What released it, in which state, and what that makes of the dump; kept until the next
    one."""
    from livedumpfs.dump import DumpSettings

    seen: list[tuple[VerdictWord | None, Any]] = []
    for number, steps in enumerate(([], [live.start], [live.start, live.sweep])):
        live.init(tmp_path / f"dump-{number}", DumpSettings(sweep_rate=65536))
        assert live.released is None
        for step in steps:
            step()
        assert live.verdict is None
        live.release("by a test")
        seen.append((live.verdict, live.released))
    assert seen == [
        ("incomplete", f"released by a test in state {state}, before it was sealed")
        for state in ("INIT", "START", "SWEEP")
    ]
    assert live.save(tmp_path / "whole") == "consistent"
    assert (live.verdict, live.reason) == ("consistent", None)
    assert live.released == "released in state FINISH"
