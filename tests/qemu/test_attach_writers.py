# SPDX-License-Identifier: GPL-2.0-or-later
"""What writes the guest's memory from outside of QEMU, where `attach` cannot see it: refused, also
where QEMU itself would take a background snapshot; or left out."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from aftermath import wait_for

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.machines.qemu.now import check_files
from livedumpfs.machines.qemu.refusals import HOST_DEVICES
from tests.qemu.attached_hosts import dump_once
from tests.qemu.running_guests import SIZE, firmware_words, running

DEADLINE_S = 60.0


def test_a_disk_of_another_process(firmware: Path, tmp_path: Path) -> None:
    """vhost-user: QEMU's storage daemon maps the guest's memory. QEMU 7.2 sees no obstacle."""
    disk, socket = tmp_path / "disk", tmp_path / "vhost"
    disk.write_bytes(bytes(1 << 20))
    daemon = subprocess.Popen([
        "qemu-storage-daemon", "--blockdev", f"driver=file,node-name=d,filename={disk}",
        "--export", f"type=vhost-user-blk,id=e,addr.type=unix,addr.path={socket},node-name=d",
    ])  # fmt: skip
    try:
        wait_for(socket.exists, daemon.poll)
        words = [
            *firmware_words(firmware), "-machine", "memory-backend=ram",
            "-object", f"memory-backend-memfd,id=ram,size={SIZE},share=on",
            "-chardev", f"socket,id=c,path={socket}", "-device", "vhost-user-blk-pci,chardev=c",
        ]  # fmt: skip
        with running(tmp_path, words) as guest:
            guest.boot()
            assert guest.other.execute("query-migrate") == {}
            with pytest.raises(MachineError, match="device vhost-user-blk-pci") as caught:
                AttachedMachine(guest.socket)
            assert caught.value.errno == errno.ENOTSUP and guest.migration() == "none"
            guest.goes_on()
    finally:
        daemon.terminate()
        daemon.wait(DEADLINE_S)


def test_memory_that_guests_share_is_no_ram(tmp_path: Path) -> None:
    """ivshmem: other guests store to it. A dump has the RAM, and says what it leaves out."""
    words = [
        "-accel", "tcg", "-nodefaults", "-m", f"{SIZE >> 20}M",
        "-object", "memory-backend-memfd,id=peers,share=on,size=1M",
        "-device", "ivshmem-plain,memdev=peers,master=on",
    ]  # fmt: skip
    with running(tmp_path, words) as guest:
        # Firmware has given it addresses.
        tree = lambda: guest.other.hmp("info mtree -f")  # noqa: E731
        wait_for(lambda: ": peers" in tree() or "/objects/peers" in tree(), tree)
        with AttachedMachine(guest.socket) as machine:
            assert machine.arena.size == SIZE
            dump_once(machine)
            assert any("peers" in name for name in machine.arena.left_out), machine.arena.left_out


def test_what_qemu_has_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's vhost alone is seen by `attach`."""
    for start, _ in HOST_DEVICES:
        path = f"{start}0"
        monkeypatch.setattr(os, "readlink", lambda _, path=path: path)
        with pytest.raises(MachineError, match=f"{path} open"):
            check_files(os.getpid())
        if start == "/dev/vhost-":
            check_files(os.getpid(), kernel=False)
        else:
            with pytest.raises(MachineError, match=f"{path} open"):
                check_files(os.getpid(), kernel=False)
