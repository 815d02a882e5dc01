# SPDX-License-Identifier: GPL-2.0-or-later
"""What is plugged into a QEMU that runs already, and would make a dump of it a lie."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from livedumpfs.dump import LiveDump
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu import QemuMachine, now

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


def test_a_vhost_that_was_switched_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by netdev_add: nothing shows it but the file that QEMU has open."""
    device = tmp_path / "vhost-net"
    monkeypatch.setattr(now, "HOST_DEVICES", ((str(device), "vhost"), *now.HOST_DEVICES))
    with QemuMachine(WORDS) as machine:
        machine.start()
        assert LiveDump(machine).save(tmp_path / "before") == "consistent"
        with device.open("wb") as file:
            machine.monitor.send_file("vhost", file.fileno())
        refused(machine, tmp_path / "after", "vhost-net open: vhost")
        machine.monitor.execute("closefd", {"fdname": "vhost"})
        assert LiveDump(machine).save(tmp_path / "again") == "consistent"


@pytest.mark.parametrize("path", ["/dev/vhost-net", "/dev/vhost-vdpa-0", "/dev/vfio/12"])
def test_files_of_devices_that_write_the_memory(path: str) -> None:
    assert any(path.startswith(start) for start, _ in now.HOST_DEVICES)


def test_shared_memory_as_large_as_the_ram(tmp_path: Path) -> None:
    made = f"memory-backend-file,id=shm,size=64M,share=on,mem-path={tmp_path}/shm"
    with pytest.raises(MachineError, match="2 shared mappings") as caught:
        QemuMachine([*WORDS, "-object", made, "-device", "ivshmem-plain,memdev=shm"])
    assert "ivshmem" in caught.value.hint
