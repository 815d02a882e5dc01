# SPDX-License-Identifier: GPL-2.0-or-later
"""Live dumps of a Debian guest under QEMU, byte for byte, and what the field's tools see in them.

LIVEDUMP_QEMU_DUMPS=20 makes the long run.
"""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path
from typing import Any

import drgn
import numpy as np
import pytest

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.snapshot import convert_dump, open_dump, verify_dump
from livedumpfs.units import PAGE_SIZE

Guest = Any  # conftest.Guest
DUMPS = int(os.environ.get("LIVEDUMP_QEMU_DUMPS", "4"))
DEADLINE_S = 60.0
MIB = 1 << 20

pytestmark = pytest.mark.timeout(300 if DUMPS < 10 else 1200)


def different_pages(target: Path, reference: int, size: int) -> int:
    count = 0
    with open_dump(target) as dump, mmap.mmap(reference, size, prot=mmap.PROT_READ) as kept:
        expected = np.frombuffer(kept, dtype=np.uint8)
        for at in range(0, size, 16 * MIB):
            got = np.frombuffer(dump.read_arena(at, min(16 * MIB, size - at)), dtype=np.uint8)
            pages = (got != expected[at : at + len(got)]).reshape(-1, PAGE_SIZE).any(axis=1)
            count += int(pages.sum())
        del expected
    return count


def resident(guest: Guest) -> int:
    return os.fstat(guest.machine.arena.fd).st_blocks * 512


@pytest.mark.parametrize("number", range(DUMPS))
def test_a_live_dump_is_exact(guest: Guest, tmp_path: Path, number: int) -> None:
    """Alternately elf and kdump; in every second pair the balloon grows or shrinks meanwhile."""
    size, target = guest.machine.arena.size, tmp_path / "dump"
    live = LiveDump(guest.machine)
    reference = os.memfd_create("reference")
    try:
        os.ftruncate(reference, size)
        settings = DumpSettings(format="kdump" if number % 2 else "elf", sweep_rate=512 * MIB)
        live.init(target, settings, reference=reference)
        before = resident(guest)
        live.start()
        if number % 4 >= 2:
            guest.machine.monitor.execute(
                "balloon", {"value": (600 if number % 8 < 4 else 1024) * MIB}
            )
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        counters = live.counters()
        assert counters.faults > 0 and counters.lost == 0
        assert resident(guest) < before + 300 * MIB, "holes became memory"
        live.release()
        assert different_pages(target, reference, size) == 0
        with open_dump(target) as dump:
            assert verify_dump(dump).ok
        guest.goes_on()
    finally:
        live.release()
        os.close(reference)


def dmesg(core: Path, out: Path) -> str:
    """The kernel's log, by makedumpfile."""
    subprocess.run(
        ["makedumpfile", "--dump-dmesg", "-f", str(core), str(out)],
        check=True, capture_output=True, timeout=DEADLINE_S,
    )  # fmt: skip
    return out.read_text(errors="replace")


def release_of(core: Path) -> str:
    program = drgn.Program()
    program.set_core_dump(str(core))
    return program["UTS_RELEASE"].string_().decode()


def test_tools_open_it_as_a_linux_core(guest: Guest, tmp_path: Path) -> None:
    elf, packed = tmp_path / "vmcore", tmp_path / "kdump"
    live = LiveDump(guest.machine)
    live.save(elf)
    # Debian's makedumpfile has neither zstd nor snappy.
    live.save(packed, DumpSettings(format="kdump", compression="zlib"))
    notes = subprocess.run(
        ["readelf", "-nW", str(elf)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert [notes.count(name) for name in ("NT_PRSTATUS", "QEMU", "VMCOREINFO")] == [2, 2, 1]
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
    from livedumpfs.snapshot import SnapshotFiles, standard_images

    live = LiveDump(guest.machine)
    live.init(None, DumpSettings(spill_limit=512 * MIB))
    try:
        live.start()
        found = live.snapshot
        images = standard_images(found.machine, found.size, found.registers)
        file = SnapshotFiles(images, found.read_into, found.describe).open("vmcore")
        core = tmp_path / "vmcore"
        with open(core, "wb") as out:
            at = 0
            while data := file.pread(at, 4 * MIB):
                out.write(data)
                at += len(data)
        assert "Linux version" in dmesg(core, tmp_path / "log")
        assert live.verdict == "consistent"
    finally:
        live.release()
    guest.goes_on()


def test_notes_survive_a_conversion(guest: Guest, tmp_path: Path) -> None:
    from livedumpfs.snapshot import NewFile

    LiveDump(guest.machine).save(tmp_path / "elf")
    with open_dump(tmp_path / "elf") as dump, NewFile(str(tmp_path / "kdump")) as out:
        convert_dump(dump, "kdump", out)
    assert release_of(tmp_path / "kdump") == release_of(tmp_path / "elf")


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
