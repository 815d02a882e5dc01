# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running QEMU is asked before a START, and what it may not answer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import Any

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu.now import check_files, check_now, writers

QUIET: dict[str, Any] = {
    "query-migrate": {},
    "qom-list": [
        {"name": "type", "type": "string"},
        {"name": "device[0]", "type": "child<virtio-blk-pci>"},
    ],
    "query-memory-devices": [],
    "query-named-block-nodes": [{"node-name": "disk", "drv": "raw"}],
}


class FakeMonitor:
    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def status(self) -> str:
        return str(self.answers.get("query-status", "running"))

    def hmp(self, line: str) -> str:
        assert line == "info network"
        return str(self.answers.get("info-network", "hub 0\n \\ net0: index=0,type=user\n"))

    def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        assert (command in ("qom-list", "query-named-block-nodes")) == bool(arguments)
        return self.answers[command]


def check(**answers: Any) -> None:
    named = {name.replace("_", "-"): answer for name, answer in answers.items()}
    check_now(FakeMonitor(QUIET | named))  # type: ignore[arg-type]


def test_nothing_stands_in_the_way() -> None:
    check()
    check(query_migrate={"status": "completed"})
    off = {"capability": "background-snapshot", "state": False}
    check(query_migrate={"status": "active"}, query_migrate_capabilities=[off])


@pytest.mark.parametrize(
    "driver", ["vhost-user-blk-pci", "vhost-vsock-pci", "vfio-pci", "vfio-pci-nohotplug"]
)
def test_a_device_whose_stores_nobody_sees(driver: str) -> None:
    with pytest.raises(MachineError, match=driver) as caught:
        check(qom_list=[{"name": "one", "type": f"child<{driver}>"}])
    assert caught.value.errno == errno.ENOTSUP


@pytest.mark.parametrize("kind", ["cryptodev-vhost-user", "x-vfio-user-server"])
def test_an_object_whose_stores_nobody_sees(kind: str) -> None:
    with pytest.raises(MachineError, match=f"an object {kind}: another process") as caught:
        check(qom_list=[{"name": "one", "type": f"child<{kind}>"}])
    assert caught.value.errno == errno.ENOTSUP


@pytest.mark.parametrize("kind", ["vhost-user", "vhost-vdpa", "passt,vhost-user"])
def test_a_network_whose_stores_nobody_sees(kind: str) -> None:
    with pytest.raises(MachineError, match=f"of type {kind}") as caught:
        check(info_network=f"n0: index=0,type={kind},connected to pid 7\n")
    assert caught.value.errno == errno.ENOTSUP
    check(info_network="n0: index=0,type=passt,stream,connected to pid 7\n")


@pytest.mark.parametrize("driver", ["nvme", "virtio-blk-vhost-user", "virtio-blk-vfio-pci"])
def test_a_disk_whose_stores_nobody_sees(driver: str) -> None:
    with pytest.raises(MachineError, match=f"the disk fast has the driver {driver}"):
        check(query_named_block_nodes=[{"node-name": "fast", "drv": driver}])


def test_what_the_kernel_writes_for_qemu_is_seen_by_attach_alone() -> None:
    kinds = ("vhost-vsock-pci", "vhost-user-fs-pci", "vfio-pci")
    answers = {**QUIET, "qom-list": [{"name": "x", "type": f"child<{one}>"} for one in kinds]}
    monitor: Any = FakeMonitor(answers)
    for kernel, wanted in ((True, {*kinds}), (False, {*kinds[1:]})):
        said = " ".join(str(one) for one in writers(monitor, kernel=kernel))
        assert {kind for kind in kinds if kind in said} == wanted


def test_a_suspended_guest() -> None:
    with pytest.raises(MachineError, match="suspended"):
        check(query_status="suspended")


def test_memory_that_is_not_in_the_arena() -> None:
    with pytest.raises(MachineError, match="memory was plugged"):
        check(query_memory_devices=[{"type": "dimm", "data": {}}])


@pytest.mark.parametrize("status", ["setup", "active", "cancelling"])
def test_a_background_snapshot(status: str) -> None:
    on = {"capability": "background-snapshot", "state": True}
    with pytest.raises(MachineError, match="background snapshot") as caught:
        check(query_migrate={"status": status}, query_migrate_capabilities=[on])
    assert caught.value.errno == errno.EBUSY


def test_a_qemu_that_has_just_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    with pytest.raises(MachineError, match="ended") as caught:
        check_files(child.pid)
    assert caught.value.errno == errno.ECONNRESET


def test_a_qemu_whose_files_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(MachineError, match="cannot see") as caught:
        check_files(os.getpid())
    assert caught.value.errno == errno.EACCES
