# SPDX-License-Identifier: GPL-2.0-or-later
"""What is plugged into a QEMU that runs already, and would make a dump of it a lie."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.dump import LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.machines import ChecksFirst
from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.machines.qemu import QemuMachine, now

WORDS = [
    "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-display", "none", "-nodefaults",
    "-m", "64M,slots=2,maxmem=256M", "-device", "pcie-root-port,id=rp1",
]  # fmt: skip


DEADLINE_S = 300.0


def refused(machine: QemuMachine, what: str, code: int = errno.ENOTSUP) -> None:
    """By what is asked before a target is touched, and by START in the same words."""
    assert isinstance(machine, ChecksFirst)
    with pytest.raises(MachineError, match=what) as first:
        machine.check_start()
    with pytest.raises(MachineError) as then:
        machine.quiesce()
    assert str(then.value) == str(first.value)
    assert (then.value.errno, first.value.errno) == (code, code)
    assert machine.monitor.status() == "running"


def test_memory_that_was_plugged_in(tmp_path: Path) -> None:
    """What the refusal tells to do is possible: its dumps by another monitor of the same QEMU."""
    socket = tmp_path / "qmp"
    with QemuMachine([*WORDS, "-qmp", f"unix:{socket},server=on,wait=off"]) as machine:
        machine.start()
        machine.check_start()
        machine.monitor.execute(
            "object-add", {"qom-type": "memory-backend-ram", "id": "more", "size": 128 << 20}
        )
        machine.monitor.execute("device_add", {"driver": "pc-dimm", "id": "dimm", "memdev": "more"})
        refused(machine, "memory was plugged in")
        with AttachedMachine(str(socket)) as attached:
            assert attached.arena.size == 192 << 20
            assert LiveDump(attached).save(tmp_path / "dump") == "consistent"
        with open_dump(tmp_path / "dump") as dump:
            assert sum(one.size for one in dump.memory_map) == 192 << 20
            assert verify_dump(dump).ok
        refused(machine, "memory was plugged in")


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
        refused(machine, "vhost-net open: vhost")
        machine.monitor.execute("closefd", {"fdname": "vhost"})
        assert LiveDump(machine).save(tmp_path / "again") == "consistent"


@pytest.mark.parametrize(
    ("answers", "code", "what"),
    [
        ({"query-status": {"status": "suspended"}}, errno.EBUSY, "suspended"),
        (
            {"query-named-block-nodes": [{"drv": "nvme", "node-name": "d"}]},
            errno.ENOTSUP,
            "the driver nvme",
        ),
        (
            {"qom-list": [{"name": "c", "type": "child<vfio-pci>"}]},
            errno.ENOTSUP,
            "a device vfio-pci",
        ),
    ],
    ids=["suspended", "nvme", "vfio"],
)
def test_what_is_not_to_be_had_here(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], code: int, what: str
) -> None:
    """QEMU's answers are ours for the moment."""
    with QemuMachine(WORDS) as machine:
        machine.start()
        real = machine.monitor._ask

        async def ask(command: str, arguments: dict[str, object] | None, timeout: float) -> object:
            return answers.get(command) or await real(command, arguments, timeout)

        with monkeypatch.context() as patch:
            patch.setattr(machine.monitor, "_ask", ask)
            for step in (machine.check_start, machine.quiesce):
                with pytest.raises(MachineError, match=what) as caught:
                    step()
                assert caught.value.errno == code
        machine.check_start()
        assert machine.monitor.status() == "running"


def test_a_qemu_that_has_gone() -> None:
    with QemuMachine(WORDS) as machine:
        machine.start()
        os.kill(machine.pid, signal.SIGKILL)
        assert machine._process.ended(DEADLINE_S)
        with pytest.raises(MachineError) as caught:
            machine.check_start()
        assert caught.value.errno == errno.ECONNRESET


@pytest.mark.parametrize("path", ["/dev/vhost-net", "/dev/vhost-vdpa-0", "/dev/vfio/12"])
def test_files_of_devices_that_write_the_memory(path: str) -> None:
    assert any(path.startswith(start) for start, _ in now.HOST_DEVICES)


def test_shared_memory_as_large_as_the_ram(tmp_path: Path) -> None:
    made = f"memory-backend-file,id=shm,size=64M,share=on,mem-path={tmp_path}/shm"
    with pytest.raises(UsageError, match="2 shared mappings") as caught:
        QemuMachine([*WORDS, "-object", made, "-device", "ivshmem-plain,memdev=shm"])
    assert "ivshmem" in caught.value.hint
