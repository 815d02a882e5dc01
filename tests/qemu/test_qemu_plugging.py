# SPDX-License-Identifier: GPL-2.0-or-later
"""What is plugged into a QEMU that runs already, and would make a dump of it a lie."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from livedumpfs.dump import LiveDump
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu import QemuMachine

WORDS = [
    "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-display", "none", "-nodefaults",
    "-m", "64M,slots=2,maxmem=256M", "-device", "pcie-root-port,id=rp1",
]  # fmt: skip


def refused(machine: QemuMachine, target: Path, what: str) -> None:
    live = LiveDump(machine)
    live.init(target)
    with pytest.raises(MachineError, match=what) as caught:
        live.start()
    assert caught.value.errno == errno.ENOTSUP
    live.release()
    assert machine.monitor.status() == "running"


def test_memory_that_was_plugged_in(tmp_path: Path) -> None:
    with QemuMachine(WORDS) as machine:
        machine.start()
        assert LiveDump(machine).save(tmp_path / "before") == "consistent"
        machine.monitor.execute(
            "object-add", {"qom-type": "memory-backend-ram", "id": "more", "size": 128 << 20}
        )
        machine.monitor.execute("device_add", {"driver": "pc-dimm", "id": "dimm", "memdev": "more"})
        refused(machine, tmp_path / "after", "memory was plugged in")


def test_a_device_that_was_plugged_in(tmp_path: Path) -> None:
    """One that QEMU itself emulates does no harm."""
    with QemuMachine(WORDS) as machine:
        machine.start()
        machine.monitor.execute("device_add", {"driver": "virtio-balloon-pci", "bus": "rp1"})
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
