# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of a QEMU that runs already: exact, and with its settings as they were."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aftermath import wait_for
from firmware import ROUNDS

from livedumpfs.dump import LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import LivedumpError, MachineError
from livedumpfs.machines.attach import AttachedMachine, attached_machine, socket_monitor
from livedumpfs.machines.attach.description import read_devices
from livedumpfs.machines.attach.received_memory import ReceivedMemory
from livedumpfs.machines.attach.stream import MigrationStream
from livedumpfs.machines.attach.vcpu_devices import read_vcpus
from livedumpfs.machines.attach.window import StreamError, strange
from livedumpfs.units import PAGE_SIZE
from tests.qemu.attached_hosts import dump_once
from tests.qemu.instants import check_instant, shown
from tests.qemu.running_guests import (
    SIZE,
    RunningGuest,
    SomeGuest,
    firmware_words,
    running,
    wait_until_ended,
)

DEADLINE_S = 300.0


@pytest.fixture
def guest(firmware: Path, tmp_path: Path) -> Iterator[RunningGuest]:
    with running(tmp_path, firmware_words(firmware)) as found:
        found.boot()
        yield found


def expect_exact(guest: SomeGuest, machine: AttachedMachine, target: Path) -> None:
    """The guest stands still: a dump has each of its pages, and its registers. Afterwards it
    stands still again, and nothing has changed in QEMU."""
    before = guest.settings()
    guest.other.execute("stop")
    wanted, registers = guest.memory(machine.memory_map, machine.arena.size), guest.registers()
    live = LiveDump(machine)
    live.init(target)
    try:
        live.start()
        # Another QEMU lets it run, for some milliseconds.
        assert guest.other.status() == "paused"
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
    finally:
        live.release()
    assert guest.settings() == before
    with open_dump(target) as dump:
        got = np.frombuffer(dump.read_arena(0, machine.arena.size), np.uint8)
        assert int((got.reshape(-1, PAGE_SIZE) != wanted).any(axis=1).sum()) == 0
        assert verify_dump(dump).ok
    assert [shown(one) for one in machine._captured] == [shown(one) for one in registers]
    guest.other.execute("cont")


def test_a_guest_that_stands_still_page_for_page_and_register_for_register(
    guest: RunningGuest, tmp_path: Path
) -> None:
    with AttachedMachine(guest.socket) as machine:
        for number in range(2):
            expect_exact(guest, machine, tmp_path / f"dump{number}")
            guest.goes_on()
        assert machine.arena.size == SIZE and machine.vcpus == 1
        assert "pc.bios" in machine.arena.left_out


def test_several_memory_backends(firmware: Path, tmp_path: Path) -> None:
    """Two nodes, a module that is plugged in, and the 64 bit part of the memory."""
    words = firmware_words(firmware, "32M,slots=2,maxmem=256M")
    for index, size in enumerate((12, 20)):
        words += ["-object", f"memory-backend-ram,id=r{index},size={size}M"]
        words += ["-numa", f"node,memdev=r{index}"]
    words += ["-object", "memory-backend-memfd,id=more,size=32M", "-device", "pc-dimm,memdev=more"]
    with running(tmp_path, words) as guest:
        guest.boot()
        with AttachedMachine(guest.socket) as machine:
            assert machine.arena.size == 64 << 20
            assert sum(one.size for one in machine.memory_map) == machine.arena.size
            expect_exact(guest, machine, tmp_path / "dump")
            guest.other.execute(
                "object-add", {"qom-type": "memory-backend-ram", "id": "late", "size": 32 << 20}
            )
            guest.other.execute(
                "device_add", {"driver": "pc-dimm", "id": "module", "memdev": "late"}
            )
            with pytest.raises(MachineError, match="plugged into the guest or out of it"):
                LiveDump(machine).save(tmp_path / "next")


@pytest.mark.parametrize("format", ["elf", "kdump", "raw"])
def test_a_guest_that_stores_all_the_time(guest: RunningGuest, tmp_path: Path, format: Any) -> None:
    before, target = guest.settings(), tmp_path / "dump"
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        assert live.save(target, live.settings.__class__(format=format)) == "consistent"
        times = machine.metadata()["snapshot"]
        assert isinstance(times, dict)
        stop = times["resumed_wall_ns"] - times["stopped_wall_ns"]
        with open_dump(target) as dump:
            check_instant(dump.read_arena(0, machine.arena.size))
            # The instant and the stop are QEMU's, not those of what was done here.
            assert dump.meta["pause_ns"] == stop > 0
            assert dump.meta["instant"]["wall_ns"] == times["stopped_wall_ns"]
            assert dump.meta["machine"]["way"] == "background-snapshot"
            assert len(dump.meta["registers"]) == 1
        assert times["downtime_ms"] * 10**6 <= stop + 10**9
        assert times["stream_bytes"] > SIZE // 2
    assert guest.settings() == before and guest.other.status() == "running"
    guest.goes_on()


def test_a_snapshot_in_memory_and_one_after_it(guest: RunningGuest) -> None:
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        seen = []
        for _ in range(2):
            live.init(None)
            live.start()
            content = live.read(0, machine.arena.size)
            check_instant(content)
            seen.append(int.from_bytes(content[ROUNDS : ROUNDS + 4], "little"))
            guest.goes_on()
            assert live.read(ROUNDS, 4) == seen[-1].to_bytes(4, "little")
            live.release()
        assert seen[1] > seen[0]


@pytest.fixture
def in_the_middle(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What is in it is called once, when the first pages are here."""
    steps: list[Callable[[], object]] = []
    plain = ReceivedMemory.pages

    def pages(self: ReceivedMemory, *given: Any) -> None:
        while steps:
            steps.pop()()
        plain(self, *given)

    monkeypatch.setattr(ReceivedMemory, "pages", pages)
    return steps


def test_a_guest_that_reboots_in_the_middle(
    guest: RunningGuest, tmp_path: Path, in_the_middle: list[Callable[[], object]]
) -> None:
    in_the_middle.append(lambda: guest.other.execute("system_reset"))
    with AttachedMachine(guest.socket) as machine:
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
        with open_dump(tmp_path / "dump") as dump:
            check_instant(dump.read_arena(0, machine.arena.size))
    guest.boot()


def test_a_qemu_that_ends_in_the_middle(
    guest: RunningGuest, tmp_path: Path, in_the_middle: list[Callable[[], object]]
) -> None:
    def end() -> None:
        guest.process.kill()
        wait_until_ended(guest.process)

    in_the_middle.append(end)
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(tmp_path / "dump")
        with pytest.raises(MachineError, match="QEMU has ended before all of the memory was here"):
            live.start()
        wait_for(machine.ended)
        with pytest.raises(MachineError, match="has ended, or closed its monitor"):
            live.start()
        live.release()
    # Nothing of a START that failed is called a dump.
    assert not (tmp_path / "dump").exists()


def test_a_release_in_the_middle(
    guest: RunningGuest, in_the_middle: list[Callable[[], object]]
) -> None:
    before = guest.settings()
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        threads = []

        def release() -> None:
            threads.append(threading.Thread(target=live.release))
            threads[0].start()
            job = machine._job
            assert job
            wait_for(job._given_up.is_set)

        in_the_middle.append(release)
        with pytest.raises(LivedumpError, match="given up"):
            live.start()
        threads[0].join(DEADLINE_S)
        assert guest.settings() == before and guest.migration() == "completed"
        guest.goes_on()
        live.init(None)
        live.start()
        check_instant(live.read(0, machine.arena.size))
        live.release()


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_a_stream_that_makes_no_sense(
    guest: RunningGuest, in_the_middle: list[Callable[[], object]], paused: bool
) -> None:
    """The rest of it is read all the same: QEMU must come to its end."""

    def complain() -> None:
        raise strange("it is made up")

    before, state = guest.settings(), "paused" if paused else "running"
    if paused:
        guest.other.execute("stop")
    in_the_middle.append(complain)
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        with pytest.raises(StreamError, match="QEMU's migration stream: it is made up"):
            live.start()
        assert guest.settings() == before
        assert (guest.migration(), guest.other.status()) == ("completed", state)
        live.start()
        live.release()
    assert guest.other.status() == state
    guest.other.execute("cont")
    guest.goes_on()


def test_a_migration_that_another_program_cancels(
    guest: RunningGuest, in_the_middle: list[Callable[[], object]]
) -> None:
    in_the_middle.append(lambda: guest.other.execute("migrate_cancel"))
    before = guest.settings()
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        with pytest.raises(MachineError, match="background snapshot has been cancelled"):
            live.start()
        assert guest.settings() == before
        live.start()  # it stays in INIT
        live.release()
    guest.goes_on()


def test_settings_of_the_user_are_given_back(guest: RunningGuest) -> None:
    guest.other.execute("migrate-set-parameters", {"max-bandwidth": 12_345_678})
    events = {"capability": "events", "state": True}
    guest.other.execute("migrate-set-capabilities", {"capabilities": [events]})
    before = guest.settings()
    assert before["max-bandwidth"] == 12_345_678 and before["on"] == ["events"]
    with AttachedMachine(guest.socket) as machine:
        dump_once(machine)
    assert guest.settings() == before


KINDS = {
    "q35": ["-M", "q35"],
    "i440fx": ["-M", "pc", "-device", "virtio-balloon-pci", "-device", "vmcoreinfo"],
    "isapc": ["-M", "isapc"],
    "microvm": ["-M", "microvm"],
    "virtio-mem": [
        "-M", "q35", "-m", "32M,maxmem=1G", "-object", "memory-backend-ram,id=more,size=64M",
        "-device", "virtio-mem-pci,memdev=more,requested-size=0",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_migration_of_other_machines(tmp_path: Path, kind: str) -> None:
    """`migrate exec:cat > FILE` of a guest that stands still at its end: the parser does not depend
    on what the machine is made of."""
    words = ["-accel", "tcg", "-m", "32M", *KINDS[kind]]
    with running(tmp_path, words) as guest, AttachedMachine(guest.socket) as machine:
        guest.other.execute("migrate", {"uri": f"exec:cat > {tmp_path}/stream"})
        wait_for(lambda: guest.migration() == "completed", guest.migration)
        with open(tmp_path / "stream", "rb", buffering=0) as file:
            devices = read_devices(MigrationStream(file.readinto, machine.arena).read())
        machine.arena.expect_whole()
        assert len(devices) > 5 and len(read_vcpus(devices, "x86_64")) == 1
        assert [shown(one) for one in read_vcpus(devices, "x86_64")] == [
            shown(one) for one in guest.registers()
        ]
        wanted = guest.memory(machine.memory_map, machine.arena.size)
        assert (machine.arena.live.reshape(-1, PAGE_SIZE) == wanted).all()


# -------------------------------------------------------------------------- refusals


def expect_refused(guest: RunningGuest, sentence: str) -> None:
    before, state = guest.settings(), guest.other.status()
    with pytest.raises(MachineError, match=sentence) as caught:
        AttachedMachine(guest.socket)
    assert "\n" not in str(caught.value)
    assert (guest.settings(), guest.other.status()) == (before, state)


@pytest.mark.parametrize("name", ["postcopy-ram", "multifd", "xbzrle", "x-ignore-shared"])
def test_a_capability_that_excludes_it(guest: RunningGuest, name: str) -> None:
    one = {"capability": name, "state": True}
    guest.other.execute("migrate-set-capabilities", {"capabilities": [one]})
    expect_refused(guest, f"migration capability {name} is on.*migrate_set_capability {name} off")


def test_a_migration_under_way_and_states_that_qemu_does_not_survive(
    guest: RunningGuest, tmp_path: Path
) -> None:
    guest.other.execute("migrate-set-parameters", {"max-bandwidth": 1})
    guest.other.execute("migrate", {"uri": f"exec:cat > {tmp_path}/stream"})
    wait_for(lambda: guest.migration() == "active", guest.migration)
    with pytest.raises(MachineError, match=r"a migration .* is under way \(active\)"):
        AttachedMachine(guest.socket)
    guest.other.execute("migrate_cancel")
    wait_for(lambda: guest.migration() == "cancelled", guest.migration)
    with AttachedMachine(guest.socket):
        pass


def test_a_guest_that_has_not_begun(firmware: Path, tmp_path: Path) -> None:
    with running(tmp_path, [*firmware_words(firmware), "-S"]) as guest:
        expect_refused(guest, r"neither running nor paused \(prelaunch\)")


def test_no_room_for_the_memory(guest: RunningGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        @staticmethod
        def ldfs_headroom_ram(size: int) -> int:
            assert size > SIZE // 2
            return 0

    with AttachedMachine(guest.socket) as machine:
        monkeypatch.setattr(attached_machine, "lib", Full)
        with pytest.raises(MachineError, match=r"memory \(\S+ MiB\) has no room"):
            LiveDump(machine).init(None)
    assert guest.migration() == "none"


def test_a_socket_that_is_none_or_is_taken(guest: RunningGuest, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"does not listen at .*No such file"):
        AttachedMachine(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"does not listen at .*Connection refused"):
        AttachedMachine(str(tmp_path / "file"))
    with contextlib.ExitStack() as taken:
        taken.enter_context(AttachedMachine(guest.socket))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket_monitor, "_CONNECT_S", 0.2)
            with pytest.raises(MachineError, match="another client may be connected"):
                AttachedMachine(guest.socket)


def test_what_it_says_of_itself(guest: RunningGuest) -> None:
    with AttachedMachine(guest.socket) as machine:
        said = machine.metadata()
        assert re.fullmatch(r"\d+\.\d+\.\d+", str(said["qemu"]))
        assert said["name"] == "qemu-attached" and said["accelerator"] == "tcg"
        assert machine.registers()[0].keys() >= {"rax", "rip", "gs_base"}
        with pytest.raises(MachineError, match="no START"):
            machine.snapshot_registers()
