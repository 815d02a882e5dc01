# SPDX-License-Identifier: GPL-2.0-or-later
"""What observers of a LiveDump are told, in which order and once; and what a host's tally makes of
it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, abi
from livedumpfs.control.tally import STEPS, VERDICTS, Tally
from livedumpfs.dump import Counters, DumpEvent, DumpSettings, Happened
from livedumpfs.dump.event import Observer
from livedumpfs.errors import MachineError, StateError, TargetError
from tests.fixtures.control_bench import Bench
from tests.fixtures.refusals import refused

MIB = 1 << 20
INIT, START, FINISH, RELEASE = Happened.INIT, Happened.START, Happened.FINISH, Happened.RELEASE


class Told(list[DumpEvent]):
    """What an observer was told."""

    def order(self) -> list[Happened]:
        return [one.what for one in self]


@pytest.fixture
def dump() -> Iterator[LiveDump]:
    with Arena(MIB) as arena, LiveDump(arena) as one:
        arena.array("u1", (MIB,), name="all")[:] = 1
        yield one


@pytest.fixture
def told(dump: LiveDump) -> Told:
    found = Told()
    dump.observers.append(found.append)
    return found


def test_a_whole_dump(dump: LiveDump, told: Told, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    dump.save(out)
    assert told.order() == [INIT, START, FINISH, RELEASE]
    assert len({one.dump_id for one in told}) == 1 and len(told[0].dump_id) == 16
    assert [one.target for one in told] == [f"{out}.incomplete"] * 2 + [out] * 2
    assert [one.verdict for one in told] == [None, None, "consistent", "consistent"]
    assert not any(one.reason or one.errno for one in told)
    assert told[0].counters.instant_wall_ns == 0
    assert told[1].counters.pause_ns > 0
    assert told[1].counters.instant_wall_ns == told[3].counters.instant_wall_ns > 0
    assert told[2].counters.bytes_written >= MIB
    assert told[3].released == "released in state FINISH"


def test_one_in_memory(dump: LiveDump, told: Told) -> None:
    for _ in range(2):
        dump.init(None)
        dump.start()
        dump.sweep()
        dump.release("by a test")
    assert told.order() == 2 * [INIT, START, FINISH, RELEASE]
    assert told[2].target is None and told[2].verdict == "consistent"
    assert told[3].released == "released by a test in state FINISH"
    assert told[0].dump_id != told[4].dump_id


def test_one_that_is_broken_off(dump: LiveDump, told: Told, tmp_path: Path) -> None:
    dump.init(str(tmp_path / "out"))
    dump.start()
    dump.release("by its client")
    assert told.order() == [INIT, START, RELEASE]
    assert told[2].verdict == "incomplete"
    assert told[2].released == "released by its client in state START, before it was sealed"


def test_a_full_disk(dump: LiveDump, told: Told, tmp_path: Path) -> None:
    """The verdict has its reason, and the number of the first error."""
    dump.init(str(tmp_path / "out"), DumpSettings(policy="fail"))
    run = dump._run
    assert run is not None and run.files is not None

    def seal(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run.files.seal = seal  # type: ignore[method-assign, assignment]
    dump.start()
    dump.sweep()
    assert dump.finish(check=False) == "incomplete"
    dump.release()
    assert told.order() == [INIT, START, FINISH, RELEASE]
    assert told[2].verdict == "incomplete" and told[2].errno == errno.ENOSPC
    assert told[2].reason and "No space left on device" in told[2].reason


def test_the_observer_knows_of_the_seal_before_a_client_does(
    dump: LiveDump, told: Told, tmp_path: Path
) -> None:
    dump.init(str(tmp_path / "out"))
    dump.start()
    dump.sweep()
    dump.finish()
    assert told.order() == [INIT, START, FINISH]


def test_an_init_that_fails_is_no_dump(dump: LiveDump, told: Told, tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        dump.init(str(tmp_path / "no" / "out"))
    with pytest.raises(StateError):
        dump.start()
    assert told == []


@pytest.mark.parametrize("what", [INIT, START, FINISH, RELEASE])
def test_an_observer_that_raises_changes_no_step(
    dump: LiveDump, told: Told, tmp_path: Path, what: Happened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told all the same, and the next dump is taken."""
    printed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)

    def bad(event: DumpEvent) -> None:
        if event.what is what:
            raise ValueError("of an observer")

    dump.observers.insert(0, bad)
    for target in (str(tmp_path / "out"), None):
        dump.init(target)
        dump.start()
        dump.sweep()
        assert dump.finish() == "consistent"
        dump.release()
    assert told.order() == 2 * [INIT, START, FINISH, RELEASE]
    assert [str(one.exc_value) for one in printed] == 2 * ["of an observer"]


# --------------------------------------------------------------------------- the tally


def event(what: Happened, number: int = 1, verdict: str | None = None, **more: object) -> DumpEvent:
    return DumpEvent(what, bytes([number]) * 16, verdict=verdict, **more)  # type: ignore[arg-type]


def test_a_dump_counts_once() -> None:
    tally = Tally()
    assert tally.look().dumps == dict.fromkeys(VERDICTS, 0)
    at = Counters(instant_wall_ns=5)
    for one in (
        event(INIT), event(START), event(FINISH, 1, "consistent", target="x", counters=at),
        event(RELEASE, 1, "consistent", target="x", counters=at),
        event(INIT, 2), event(RELEASE, 2, "incomplete", target="x"),
        event(INIT, 3), event(RELEASE, 3),  # in memory, and no START
        event(FINISH, 4, "torn", target="x"), event(RELEASE, 4, "torn", target="x"),
    ):  # fmt: skip
        tally.note(one)
    found = tally.look()
    assert found.dumps == {"consistent": 1, "torn": 1, "incomplete": 1}
    assert found.consistent_wall_ns == 5


def test_a_snapshot_in_memory_counts_when_it_cannot_lose_any_more() -> None:
    tally = Tally()
    tally.note(event(FINISH, 1, "consistent"))
    assert tally.look().dumps["consistent"] == 0
    tally.note(event(RELEASE, 1, "torn"))
    assert tally.look().dumps == {"consistent": 0, "torn": 1, "incomplete": 0}
    assert tally.look().consistent_wall_ns == 0


# ------------------------------------------------------------------ steps that fail


@pytest.fixture
def failed(bench: Bench) -> Told:
    found = Told()
    observer: Observer = found.append
    bench.dump.observers.append(observer)
    return found


def raising(error: Exception) -> object:
    def step() -> None:
        raise error

    return step


def test_a_step_that_fails_is_told_and_counted(bench: Bench, failed: Told) -> None:
    bench.dump.in_init = raising(  # type: ignore[assignment]
        MachineError("no slots", errno=errno.ENOMEM, hint="a smaller <pool>")
    )
    refused(errno.ENOMEM, bench.init)
    (one,) = failed
    assert (one.what, one.step, one.errno, one.dump_id) == (
        Happened.FAILED, "INIT", errno.ENOMEM, b"",
    )  # fmt: skip
    assert one.reason == "no slots (a smaller control/pool)"
    bench.dump.in_init = lambda: None
    bench.init()
    bench.dump.in_start = raising(OSError(errno.EIO, "x"))  # type: ignore[assignment]
    refused(errno.EIO, lambda: bench.ioctl(abi.START))
    assert (failed[1].step, failed[1].dump_id) == ("START", bench.dump.dump_id)
    text = bench.read("metrics")
    for step in STEPS:
        count = 1 if step in ("INIT", "START") else 0
        assert f'livedumpfs_failed_steps_total{{step="{step}"}} {count}.0\n' in text


def test_a_target_that_cannot_be_opened_is_told(bench: Bench, failed: Told) -> None:
    refused(errno.ENOENT, lambda: bench.init(abi.InitFlag(0), path=b"/no/where/at/all"))
    assert [one.step for one in failed] == ["INIT"]
    assert failed[0].reason and "/no/where" in failed[0].reason


def test_what_a_client_does_wrong_is_no_failure(bench: Bench, failed: Told) -> None:
    refused(errno.EINVAL, lambda: bench.ioctl(abi.START))
    bench.init()
    refused(errno.EBUSY, bench.init)
    refused(errno.EBUSY, lambda: bench.write("control/policy", "fail"))
    refused(errno.EINVAL, lambda: bench.ioctl(abi.SWEEP))
    assert failed == []
