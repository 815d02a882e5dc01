# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of a Debian guest under load in a QEMU that runs already, byte for byte: `make test-qemu`.

LIVEDUMP_QEMU_DUMPS=20 makes the long run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drgn
import numpy as np
import pytest
from drgn.helpers.linux import for_each_task

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.machines.attach.received_memory import ReceivedMemory
from livedumpfs.units import PAGE_SIZE
from tests.qemu.instants import shown
from tests.qemu.lengths import DUMPS, LONG, MEMORY
from tests.qemu.running_guests import RunningGuest, running
from tests.qemu.test_debuggers import SYMBOLS, check_tasks, crash, next_tasks, rest, tasks_of_crash
from tests.qemu.test_guest import check_vmcore

pytestmark = [
    pytest.mark.together,
    pytest.mark.timeout(900 if DUMPS < 10 else 3600),
    pytest.mark.skipif(not LONG, reason="`make test-qemu`; firmware in test_attach.py"),
]
DEADLINE_S = 300.0
BALLOON = (None, 0.7, None, 1.0)
"""The share of its memory that the balloon is to leave the guest, in the middle of a dump."""


@pytest.fixture(scope="module", params=["told", "searched"])
def debian(
    request: pytest.FixtureRequest, guest_files: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningGuest, Any]]:
    """Its QEMU, and what it prints. VMCOREINFO is told by a device, or has to be searched for."""
    from tests.qemu.conftest import Guest, guest_command

    del guest_files
    folder = tmp_path_factory.mktemp("debian")
    words = guest_command(folder / "console", f"{MEMORY}M", churn=3)[1:]
    if request.param == "told":
        words += ["-device", "vmcoreinfo"]
    with running(folder, words, nice=0) as found:
        guest = Guest(None, folder / "console")
        guest.boot()
        yield found, guest


@pytest.mark.parametrize("number", range(DUMPS))
def test_a_dump_under_load_is_exact(
    debian: tuple[RunningGuest, Any],
    tmp_path: Path,
    number: int,
    running_on: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference is taken while the guest stands still; then it writes, reads its disk directly,
    and its balloon takes or gives memory, while QEMU sends what was there before."""
    del running_on
    qemu, guest = debian
    share, target = BALLOON[number % len(BALLOON)], tmp_path / "dump"
    seen: list[str] = []
    plain = ReceivedMemory.pages

    def disturb() -> None:
        seen.append(qemu.other.status())
        if share is not None:
            qemu.other.execute("balloon", {"value": int(share * MEMORY) << 20})

    # On its own: QEMU's monitor may wait for a vCPU that waits for what was not read yet.
    disturbing = threading.Thread(target=disturb)

    def pages(self: ReceivedMemory, *given: Any) -> None:
        if not disturbing.ident:
            disturbing.start()
        plain(self, *given)

    monkeypatch.setattr(ReceivedMemory, "pages", pages)
    before = qemu.settings()
    with AttachedMachine(qemu.socket) as machine:
        qemu.other.execute("stop")
        wanted, registers = qemu.memory(machine.memory_map, machine.arena.size), qemu.registers()
        live = LiveDump(machine)
        live.init(target, DumpSettings(format="kdump" if number % 2 else "elf"))
        try:
            live.start()
            disturbing.join(DEADLINE_S)
            qemu.other.execute("cont")
            live.sweep()
            assert live.finish(DEADLINE_S) == "consistent", live.failure
        finally:
            live.release()
            qemu.other.execute("cont")
        with open_dump(target) as dump:
            got = np.frombuffer(dump.read_arena(0, machine.arena.size), np.uint8)
            different = int((got.reshape(-1, PAGE_SIZE) != wanted).any(axis=1).sum())
            assert verify_dump(dump).ok
        said = machine.metadata()["snapshot"]
        print(f"\n{number}: {different} of {len(wanted)} pages differ, {said}")
        assert different == 0 and seen == ["running"]
        assert [shown(one) for one in machine._captured] == [shown(one) for one in registers]
    assert qemu.settings() == before
    guest.goes_on()


@pytest.mark.parametrize("number", range(min(DUMPS, 3)))
def test_a_running_guest_in_drgn(
    debian: tuple[RunningGuest, Any], tmp_path: Path, number: int
) -> None:
    qemu, guest = debian
    del number
    with AttachedMachine(qemu.socket) as machine:
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
        said = machine.metadata()["snapshot"]
        assert isinstance(said, dict)
        stop = (said["resumed_wall_ns"] - said["stopped_wall_ns"]) / 1e6
        print(f"\nstop {stop:.1f} ms, {said}")
    check_vmcore(guest, tmp_path / "dump")
    guest.goes_on()


@pytest.mark.debuggers
def test_tasks_and_stacks_in_crash_and_drgn(
    debian: tuple[RunningGuest, Any], tmp_path: Path
) -> None:
    qemu, guest = debian
    rest(guest)
    before = next_tasks(guest)
    with AttachedMachine(qemu.socket) as machine:
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
    after = next_tasks(guest)
    listed, stacks, log = crash(tmp_path / "dump", tmp_path, "ps", "bt -a", "log")
    check_tasks(tasks_of_crash(listed), before, after)
    assert stacks.count("PID: ") == 2 and "Linux version" in log
    program = drgn.Program()
    program.set_core_dump(str(tmp_path / "dump"))
    program.load_debug_info([str(SYMBOLS)])
    found = {task.pid.value_(): task.comm.string_().decode() for task in for_each_task(program)}
    check_tasks(found, before, after)
