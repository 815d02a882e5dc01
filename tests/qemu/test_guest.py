# SPDX-License-Identifier: GPL-2.0-or-later
"""Live dumps of a Debian guest under QEMU, byte for byte, and what the field's tools see in them.

LIVEDUMP_QEMU_DUMPS=20 makes the long run.
"""

from __future__ import annotations

import mmap
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drgn
import numpy as np
import numpy.typing as npt
import pytest

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import NewFile, convert_dump, open_dump, verify_dump
from livedumpfs.errors import UsageError
from livedumpfs.formats.snapshot_files import SnapshotFiles, standard_images
from livedumpfs.linux import Kernel, log_records, tasks
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.units import PAGE_SIZE
from tests.qemu.lengths import DUMPS, LONG, MEMORY

Guest = Any  # conftest.Guest
DEADLINE_S = 300.0
MIB = 1 << 20
BALLOON = (None, None, 0.7, 0.5, None, None, 1.0, 0.6)
"""The share of its memory that the balloon is to leave the guest, by the number of the dump; None:
as it is."""
DISCARDED = 500
"""Pages with data, at the least, that are given back before they are saved."""

# One guest for all of them; and what a busy machine needs to boot it.
pytestmark = [pytest.mark.together, pytest.mark.timeout(900 if DUMPS < 10 else 3600)]


def pieces(size: int) -> Iterator[tuple[int, int]]:
    for at in range(0, size, 16 * MIB):
        yield at, min(16 * MIB, size - at)


def different_pages(target: Path, reference: int, size: int) -> int:
    count = 0
    with open_dump(target) as dump, mmap.mmap(reference, size, prot=mmap.PROT_READ) as kept:
        expected = np.frombuffer(kept, dtype=np.uint8)
        for at, length in pieces(size):
            got = np.frombuffer(dump.read_arena(at, length), dtype=np.uint8)
            pages = (got != expected[at : at + length]).reshape(-1, PAGE_SIZE).any(axis=1)
            count += int(pages.sum())
        del expected
    return count


def data_pages(fd: int, size: int) -> npt.NDArray[np.bool_]:
    """Which pages of a memfd there are."""
    found, end = np.zeros(size // PAGE_SIZE, dtype=bool), 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing behind `end`
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        found[start // PAGE_SIZE : end // PAGE_SIZE] = True
    return found


def nonzero_pages(fd: int, size: int) -> npt.NDArray[np.bool_]:
    found = [
        np.frombuffer(os.pread(fd, length, at), dtype=np.uint64).reshape(-1, PAGE_SIZE // 8).any(1)
        for at, length in pieces(size)
    ]
    return np.concatenate(found)


@pytest.mark.parametrize("number", range(DUMPS))
def test_a_live_dump_is_exact(guest: Guest, tmp_path: Path, number: int) -> None:
    """Alternately elf and kdump; in every second pair the balloon takes or gives memory meanwhile:
    pages that had data in the snapshot are then gone, and only the dump has saved them before."""
    machine, target = guest.machine, tmp_path / "dump"
    size, share = machine.arena.size, BALLOON[number % len(BALLOON)]
    live = LiveDump(machine)
    reference = os.memfd_create("reference")
    try:
        os.ftruncate(reference, size)
        settings = DumpSettings(format="kdump" if number % 2 else "elf", sweep_rate=512 * MIB)
        live.init(target, settings, reference=reference)
        live.start()
        if share is not None:
            before = machine.monitor.execute("query-balloon")["actual"]
            left = int(share * MEMORY) * MIB
            machine.monitor.execute("balloon", {"value": left})
            if left < before:
                had_data = nonzero_pages(reference, size)
                fd = machine.arena.fd
                guest.wait_for(lambda: (had_data & ~data_pages(fd, size)).sum() >= DISCARDED)
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        counters = live.counters()
        assert counters.faults > 0 and counters.lost == 0
        live.release()
        assert different_pages(target, reference, size) == 0
        with open_dump(target) as dump:
            assert verify_dump(dump).ok
        guest.goes_on()
        print(
            f"\n{number}: {settings.format}, pause {counters.pause_ns / 1e6:.1f} ms = stop"
            f" {counters.quiesce_ns / 1e6:.1f} + copy and swap + cont"
            f" {counters.resume_ns / 1e6:.1f} ms, swap {counters.arm_ns / 1e6:.2f} ms,"
            f" {counters.faults} faults"
        )
    finally:
        live.release()
        os.close(reference)


@pytest.mark.skipif(not LONG, reason="`make test-qemu`; the balloon of test_a_live_dump_is_exact")
def test_pages_that_the_guest_reports_free_are_saved_first(
    guest_parts: Any, tmp_path: Path
) -> None:
    """Its balloon stays as it is: what goes during the dump is what its kernel found to be free
    for two seconds. A guest of its own, as these pages come and go with every look at them."""
    command, make_guest = guest_parts
    console, balloon = tmp_path / "console", "virtio-balloon-pci"
    words = [f"{w},free-page-reporting=on" if w == balloon else w for w in command(console)]
    with QemuMachine(words) as machine:
        guest = make_guest(machine, console)
        machine.start()
        guest.boot()
        for format in ("elf", "kdump"):
            dump_while_pages_go(guest, tmp_path / format, format)


def dump_while_pages_go(guest: Guest, target: Path, format: str) -> None:
    machine = guest.machine
    fd, size = machine.arena.fd, machine.arena.size
    live, reference = LiveDump(machine), os.memfd_create("reference")
    try:
        os.ftruncate(reference, size)
        before = machine.monitor.execute("query-balloon")
        live.init(target, DumpSettings(format=format, pool=512 * MIB), reference=reference)
        live.start()
        had_data = nonzero_pages(reference, size)
        gone = np.zeros_like(had_data)

        def reported() -> bool:
            nonlocal gone
            gone |= had_data & ~data_pages(fd, size)  # the guest soon takes some of it again
            return int(gone.sum()) >= DISCARDED

        guest.wait_for(reported, DEADLINE_S)
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        assert machine.monitor.execute("query-balloon") == before
        live.release()
        assert different_pages(target, reference, size) == 0
        guest.goes_on()
        print(f"\n{format}: {int(gone.sum())} pages with data were discarded before the sweep")
    finally:
        live.release()
        os.close(reference)


def test_the_disk_is_read_into_protected_memory(guest: Guest, tmp_path: Path) -> None:
    """The kernel writes what the guest reads directly: none of it fails while nothing is swept."""
    protected = guest.protected
    live = LiveDump(guest.machine)
    live.init(tmp_path / "dump")
    try:
        assert protected.count() == 0
        live.start()
        reads = guest.reads()
        assert protected.count() > 0
        guest.wait_for(lambda: guest.reads() > reads)
        guest.goes_on()
        # How many are left is the guest's business, and this test's if it had to wait for its turn.
        assert protected.count() > 0
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
        assert live.counters().faults > 0
    finally:
        live.release()
    assert protected.count() == 0


def test_holes_stay_holes(guest: Guest, tmp_path: Path) -> None:
    """Pages that nothing but the dump could have made."""
    machine = guest.machine
    size, fd = machine.arena.size, machine.arena.fd
    left = int(0.6 * MEMORY) * MIB
    machine.monitor.execute("balloon", {"value": left})
    guest.wait_for(lambda: machine.monitor.execute("query-balloon")["actual"] == left)
    before = data_pages(fd, size)
    assert before.mean() < 0.7, "a guest with holes"
    for format in ("elf", "kdump", "raw"):
        live = LiveDump(machine)
        assert live.save(tmp_path / format, DumpSettings(format=format)) == "consistent"
        assert (tmp_path / format).stat().st_blocks * 512 < 0.8 * size
    made = data_pages(fd, size) & ~before
    filled = nonzero_pages(fd, size)
    # The guest touches some for itself; what it touches and zeroes again is little.
    assert int((made & ~filled).sum()) < 0.02 * len(before), "holes became memory"


def dmesg(core: Path, out: Path) -> str:
    """The kernel's log, by makedumpfile."""
    subprocess.run(
        ["makedumpfile", "--dump-dmesg", "-f", str(core), str(out)],
        check=True, capture_output=True, timeout=DEADLINE_S,
    )  # fmt: skip
    return out.read_text(errors="replace")


def notes(core: Path) -> str:
    return subprocess.run(
        ["readelf", "-nW", str(core)], capture_output=True, text=True, check=True, timeout=300
    ).stdout


def release_of(core: Path) -> str:
    program = drgn.Program()
    program.set_core_dump(str(core))
    return program["UTS_RELEASE"].string_().decode()


def information(core: Path) -> dict[str, str]:
    """VMCOREINFO of an ELF core."""
    text = re.search(rb"VMCOREINFO\0+(OSRELEASE=[ -~\n]*)", core.read_bytes()[: 1 << 16])
    assert text is not None
    return dict(line.split("=", 1) for line in text[1].decode().splitlines() if "=" in line)


def check_vmcore(guest: Guest, core: Path) -> None:
    """An ELF core of the kernel that runs now: its addresses are drawn anew with each start."""
    found = [notes(core).count(name) for name in ("NT_PRSTATUS", "QEMU", "VMCOREINFO")]
    assert found == [2, 2, 1]
    release, text = guest.word(r"release (\S+)"), guest.word(r"release \S+ _stext (\S+)")
    told = information(core)
    assert release and told["OSRELEASE"] == release_of(core) == release
    assert int(text, 16) > 0 and int(told["SYMBOL(_stext)"], 16) == int(text, 16)


def test_tools_open_it_as_a_linux_core(guest: Guest, tmp_path: Path) -> None:
    elf, packed = tmp_path / "vmcore", tmp_path / "kdump"
    live = LiveDump(guest.machine)
    live.save(elf)
    # Debian's makedumpfile has neither zstd nor snappy.
    live.save(packed, DumpSettings(format="kdump", compression="zlib"))
    check_vmcore(guest, elf)
    for core in (elf, packed):
        log = dmesg(core, tmp_path / f"{core.name}.log")
        assert "Linux version" in log and "Command line: console=ttyS0" in log
        assert release_of(core) in log
    with open_dump(elf) as dump:
        assert [set(one) >= {"rip", "rsp", "fs_base"} for one in dump.registers] == [True, True]
        assert dump.meta["identity_mapped"] is False


def test_the_snapshot_is_a_linux_core_before_anything_is_saved(
    guest: Guest, tmp_path: Path
) -> None:
    """Read out between START and SWEEP; the dump that is swept then is the same."""
    core, target = tmp_path / "vmcore", tmp_path / "target"
    live = LiveDump(guest.machine)
    live.init(target)
    try:
        live.start()
        found = live.snapshot
        images = standard_images(found.machine, found.size, found.registers)
        file = SnapshotFiles(images, found.open_image, found.describe).open("vmcore")
        with open(core, "wb") as out:
            at = 0
            while data := file.pread(at, 4 * MIB):
                if data.count(0) == len(data):
                    out.seek(len(data), os.SEEK_CUR)
                else:
                    out.write(data)
                at += len(data)
            out.truncate()
        assert "Linux version" in dmesg(core, tmp_path / "log")
        check_vmcore(guest, core)
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
    finally:
        live.release()
    assert information(core) == information(target)
    guest.goes_on()


def test_start_does_not_look_for_what_init_has_found(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """START returns as soon with much memory as with little."""
    live = LiveDump(guest.machine)
    guest.machine._information.place = None
    live.init(tmp_path / "dump")
    monkeypatch.delattr("livedumpfs.machines.kernels.information.locate_vmcoreinfo")
    try:
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
    finally:
        live.release()
    check_vmcore(guest, tmp_path / "dump")


def test_a_kernel_that_comes_up_between_init_and_start(guest: Guest) -> None:
    """INIT has found none, and that was true of what ran then: the fixture's first dump."""
    check_vmcore(guest, guest.first)


@pytest.mark.skipif(not LONG, reason="`make test-qemu`; test_qemu_firmware.py without a kernel")
@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_memory_above_4_gib(
    guest_parts: Any, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3 GiB one lies there, and what it holds is where the guest has it. This guest tells QEMU's
    device where its VMCOREINFO is: livedump does not look for it."""
    command, make_guest = guest_parts
    console, target = tmp_path / "console", tmp_path / "dump"
    monkeypatch.delattr("livedumpfs.machines.kernels.information.locate_vmcoreinfo")
    with QemuMachine([*command(console, "3G"), "-device", "vmcoreinfo"]) as machine:
        size, reference = machine.arena.size, os.memfd_create("reference")
        guest = make_guest(machine, console)
        machine.start()
        guest.boot()
        live = LiveDump(machine)
        try:
            os.ftruncate(reference, size)
            live.init(target, DumpSettings(format=format), reference=reference)
            live.start()
            live.sweep()
            assert live.finish(DEADLINE_S) == "consistent"
            assert different_pages(target, reference, size) == 0
            assert release_of(target) == guest.word(r"release (\S+)")
            with open_dump(target) as dump:
                low, high = dump.memory_map
            assert (low.start, low.size, high.start) == (0, 2 << 30, 4 << 30)
            # A page with data above, as drgn finds it by its physical address.
            found = nonzero_pages(reference, size)[low.size // PAGE_SIZE :]
            page = int(found.argmax()) * PAGE_SIZE
            program = drgn.Program()
            program.set_core_dump(str(target))
            got = program.read(high.start + page, PAGE_SIZE, physical=True)
            assert got == os.pread(reference, PAGE_SIZE, low.size + page) != bytes(PAGE_SIZE)
            live.release()
            guest.goes_on()
        finally:
            live.release()
            os.close(reference)


def test_notes_survive_a_conversion(guest: Guest, tmp_path: Path) -> None:
    LiveDump(guest.machine).save(tmp_path / "elf")
    with open_dump(tmp_path / "elf") as dump, NewFile(str(tmp_path / "kdump")) as out:
        convert_dump(dump, "kdump", out)
    assert release_of(tmp_path / "kdump") == release_of(tmp_path / "elf")


def test_the_guest_says_which_tasks_it_has(guest: Guest) -> None:
    """To be compared with those that a debugger finds in a dump."""
    told = guest.tasks()
    assert (told[1], told[2]) == ("init", "kthreadd")
    assert list(told.values()).count("sleep") >= 20
    # Those of the disk, the beat, the tasks and `fill`, and one that writes, or three.
    assert list(told.values()).count("workload") >= (5 if DUMPS < 10 else 7)


def test_its_tasks_and_log_are_read_without_debug_symbols(guest: Guest, tmp_path: Path) -> None:
    """By the page tables, symbols and types that the kernel has in its memory."""
    LiveDump(guest.machine).save(tmp_path / "dump")
    with open_dump(tmp_path / "dump") as dump:
        kernel = Kernel(dump.meta, dump.read_physical)
        found, log = list(tasks(kernel)), [one.text for one in log_records(kernel)]
    names = {one.pid: one.name for one in found}
    assert (names[0], names[1], names[2]) == ("swapper/0", "init", "kthreadd")
    assert list(names.values()).count("sleep") >= 20
    assert all(one.user_memory == (one.parent != 2 and one.pid not in (0, 2)) for one in found)
    assert "Linux version" in log[0] and kernel.description.release in log[0]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-device", "vfio-pci,host=0:1.0"], "vfio"),
        (["-netdev", "tap,id=n,vhost=on"], "vhost"),
        (["-daemonize"], "daemonize"),
        (["-object", "memory-backend-ram,id=r,size=1G", "-machine", "memory-backend=r"], "share"),
    ],
)
def test_what_writes_memory_unseen_is_refused(words: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        QemuMachine(["qemu-system-x86_64", "-m", "1G", *words])
