# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory and disks of a QEMU that runs already which an attached host must not mistake."""

from __future__ import annotations

import contextlib
import errno
import threading
from pathlib import Path
from typing import Any

import pytest
from accelerator import why_no_kvm
from aftermath import wait_for

from livedumpfs.dump import LiveDump
from livedumpfs.errors import LivedumpError, MachineError
from livedumpfs.huge import HUGE_SIZE
from livedumpfs.machines.attach import AttachedMachine, attached_machine
from livedumpfs.machines.attach.received_memory import ReceivedMemory
from livedumpfs.machines.attach.snapshot_job import SnapshotJob
from tests.fixtures.huge_pages import huge_pages
from tests.qemu.running_guests import ADDRESS, SIZE, RunningGuest, firmware_words, running
from tests.qemu.test_attach import expect_exact

DIMM = 16 << 20
HIGH = 1 << 32
"""Where a DIMM of a small guest lies."""
PATTERN = b"\x5a" * 4096
DEADLINE_S = 300.0
SLOTS = ["-machine", "pc,memory-backend=main", "-m", "32M,slots=2,maxmem=1G"]


def slotted(firmware: Path) -> list[str]:
    main = ["-object", "memory-backend-ram,id=main,size=32M"]
    return ["-accel", "tcg", "-nodefaults", "-bios", str(firmware), *SLOTS, *main]


def plug(guest: RunningGuest, name: str) -> None:
    """A DIMM whose first page has the pattern."""
    memory: dict[str, object] = {"qom-type": "memory-backend-ram", "id": name, "size": DIMM}
    guest.other.execute("object-add", memory)
    guest.other.execute("device_add", {"driver": "pc-dimm", "memdev": name, "id": "dimm"})
    found = ADDRESS.search(guest.other.hmp(f"gpa2hva {HIGH:#x}"))
    assert found
    with open(f"/proc/{guest.process.pid}/mem", "r+b", buffering=0) as file:
        file.seek(int(found[1], 16))
        file.write(PATTERN)


def test_a_dimm_that_is_called_as_the_memory_of_a_device(firmware: Path, tmp_path: Path) -> None:
    display = ["-device", "VGA,vgamem_mb=16"]
    with running(tmp_path, slotted(firmware) + display) as guest:
        plug(guest, "vga.vram")
        with AttachedMachine(guest.socket) as machine:
            assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
            place = next(one for one in machine.memory_map if one.start == HIGH)
            assert machine.arena.read(place.arena_offset, len(PATTERN)) == PATTERN


def test_memory_that_is_plugged_just_before_the_snapshot(
    firmware: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = SnapshotJob._prepare

    def prepared(self: SnapshotJob, theirs: Any) -> None:
        plug(guest, "more")
        prepare(self, theirs)

    monkeypatch.setattr(SnapshotJob, "_prepare", prepared)
    with running(tmp_path, slotted(firmware)) as guest, AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        with pytest.raises(MachineError, match="plugged into the guest") as found:
            live.start()
        assert found.value.errno == errno.ENOTSUP
        with pytest.raises(MachineError, match="before START"):
            machine.arena.read(0, 1)
        live.release()


def test_a_disk_that_cannot_be_flushed_at_the_instant(firmware: Path, tmp_path: Path) -> None:
    """QEMU then leaves the guest paused."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    (tmp_path / "faults").write_text(
        '[inject-error]\nevent = "none"\niotype = "flush"\nerrno = "5"\n'
    )
    faulty = f"driver=blkdebug,node-name=faulty,image=file,config={tmp_path / 'faults'}"
    words = [
        *firmware_words(firmware),
        "-blockdev", f"driver=file,node-name=file,filename={tmp_path / 'disk'}",
        "-blockdev", faulty, "-blockdev", "driver=raw,node-name=disk,file=faulty",
        "-device", "virtio-blk-pci,drive=disk,id=disk0",
    ]  # fmt: skip
    with running(tmp_path, words) as guest:
        guest.boot()
        before = guest.settings()
        guest.other.hmp('qemu-io -d /machine/peripheral/disk0/virtio-backend "write 0 512"')
        with AttachedMachine(guest.socket) as machine:
            live = LiveDump(machine)
            live.init(None)
            with pytest.raises(MachineError, match=r"cannot be flushed|Failed to stop the VM"):
                live.start()
            live.release()
            guest.goes_on()
        assert guest.settings() == before


def starting(live: LiveDump) -> tuple[threading.Thread, list[BaseException]]:
    """A thread in START, and what that will have raised."""
    found: list[BaseException] = []

    def start() -> None:
        try:
            live.start()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    return thread, found


def test_a_machine_is_closed_in_the_middle_of_a_start(
    firmware: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """START ends with a sentence, and the lifeline does the rest."""
    first = threading.Event()
    plain = ReceivedMemory.pages

    def pages(self: ReceivedMemory, *given: Any) -> None:
        first.set()
        plain(self, *given)

    monkeypatch.setattr(ReceivedMemory, "pages", pages)
    with running(tmp_path, firmware_words(firmware)) as guest:
        guest.boot()
        before = guest.settings()
        machine = AttachedMachine(guest.socket)
        live = LiveDump(machine)
        live.init(None)

        thread, found = starting(live)
        assert first.wait(DEADLINE_S)
        machine.close()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        assert all(isinstance(one, LivedumpError) for one in found), found
        wait_for(lambda: guest.settings() == before, guest.settings)
        guest.goes_on()
        live.release()


def test_a_machine_is_closed_just_before_its_job_begins(
    firmware: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lifeline is left, which would hold QEMU's monitor."""
    plain, made, closed = SnapshotJob.__init__, threading.Event(), threading.Event()

    def late(self: SnapshotJob, *given: Any, **named: Any) -> None:
        plain(self, *given, **named)
        made.set()
        assert closed.wait(DEADLINE_S)

    monkeypatch.setattr(SnapshotJob, "__init__", late)
    with running(tmp_path, firmware_words(firmware)) as guest:
        before = guest.settings()
        machine = AttachedMachine(guest.socket)
        monkeypatch.setattr(attached_machine, "_QUIET_S", 0.1)  # START goes on after it
        live = LiveDump(machine)
        live.init(None)

        thread, found = starting(live)
        assert made.wait(DEADLINE_S)
        machine.close()
        closed.set()
        thread.join(DEADLINE_S)
        assert [type(one) for one in found] == [MachineError], found
        live.release()
        monkeypatch.undo()
        assert guest.settings() == before
        with AttachedMachine(guest.socket) as machine:
            assert LiveDump(machine).save(tmp_path / "dump") == "consistent"


def test_a_disk_that_is_seen_as_memory_is_left_out(firmware: Path, tmp_path: Path) -> None:
    words = [
        *slotted(firmware),
        "-object", f"memory-backend-ram,id=disk,size={DIMM}",
        "-device", "virtio-pmem-pci,memdev=disk,id=pmem",
    ]  # fmt: skip
    with running(tmp_path, words) as guest, AttachedMachine(guest.socket) as machine:
        assert machine.arena.size == SIZE
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"


@pytest.mark.parametrize("what", ["kvm", "huge pages"])
def test_another_accelerator_and_huge_pages(what: str, busy_firmware: Path, tmp_path: Path) -> None:
    words = firmware_words(busy_firmware)
    with contextlib.ExitStack() as stack:
        if what == "kvm":
            if why := why_no_kvm():
                pytest.skip(why)
            words[words.index("tcg")] = "kvm"
        else:
            stack.enter_context(huge_pages(SIZE // HUGE_SIZE))
            memory = f"memory-backend-memfd,id=main,size={SIZE},hugetlb=on"
            words += ["-object", memory, "-machine", "memory-backend=main"]
        guest = stack.enter_context(running(tmp_path, words))
        guest.boot()
        machine = stack.enter_context(AttachedMachine(guest.socket))
        for number in range(2):
            expect_exact(guest, machine, tmp_path / f"dump{number}")
