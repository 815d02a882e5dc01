# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn machines: their end, whatever the vCPUs do."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from livedumpfs.core.capi import lib
from livedumpfs.errors import MachineError
from livedumpfs.machines import BUILT_IN_GUEST, UnicornMachine, boot
from tests.fixtures.own_threads import vcpu_threads
from tests.fixtures.unicorn_guests import (
    COUNT,
    RAM,
    MakeGuest,
    needs_gcc,
    needs_ledger,
    wait_for,
    word,
)

pytestmark = pytest.mark.usefixtures("no_vcpu_is_left")


@needs_gcc
def test_stop_while_held_runs_no_more_guest_code(guest: MakeGuest) -> None:
    machine = UnicornMachine(RAM, guest=guest(COUNT))
    machine.start()
    wait_for(lambda: word(machine, 0x200000), machine)
    machine.quiesce()
    count = word(machine, 0x200000)
    machine.stop()
    assert word(machine, 0x200000) == count == machine.registers()[0]["r15"]
    assert machine.state == "stopped"
    machine.stop()
    machine.close()
    machine.close()
    with pytest.raises(MachineError, match="closed"):
        machine.status()


@needs_gcc
@pytest.mark.parametrize("body", ["1: jmp 1b", "sti; 1: hlt; jmp 1b", "cli; hlt", "ud2"])
def test_close_ends_the_threads_whatever_they_do(guest: MakeGuest, body: str) -> None:
    machine = UnicornMachine(RAM, 4, guest=guest(body))
    machine.start()
    with pytest.raises(MachineError) as caught:
        machine.start()
    assert caught.value.errno == errno.EBUSY
    machine.close()
    assert not vcpu_threads()


def test_close_before_start() -> None:
    if not BUILT_IN_GUEST.exists():
        pytest.skip("the built-in guest is not built: make guest")
    machine = UnicornMachine(RAM)
    assert machine.state == "new"
    assert machine.registers()[0]["rdi"] == boot.PARAMS
    machine.close()


@needs_gcc
def test_memory_is_not_freed_under_a_vcpu_that_does_not_stop(guest: MakeGuest) -> None:
    machine = UnicornMachine(RAM, guest=guest(COUNT))
    machine.start()
    wait_for(lambda: word(machine, 0x200000), machine)
    # A deadline that has passed stands for a vCPU that hangs in a fault.
    rc = lib.ldfs_machine_stop(machine._handle, 1)
    if rc:
        assert rc == -errno.ETIMEDOUT
        assert lib.ldfs_machine_destroy(machine._handle) == -errno.EBUSY
    machine.close()


@needs_gcc
def test_a_machine_that_is_forgotten_is_stopped(guest: MakeGuest) -> None:
    machine = UnicornMachine(RAM, guest=guest(COUNT))
    machine.start()
    del machine
    assert not vcpu_threads()


@needs_ledger
def test_a_program_that_ends_with_a_machine_running_ends() -> None:
    code = "from livedumpfs.machines import UnicornMachine as M; m = M('8MiB', 2); m.start()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_vcpu_threads_block_no_fault_signal() -> None:
    if not BUILT_IN_GUEST.exists():
        pytest.skip("the built-in guest is not built: make guest")
    with UnicornMachine(RAM):
        (tid,) = vcpu_threads()
        status = Path(f"/proc/self/task/{tid}/status").read_text()
        blocked = int(status.split("SigBlk:")[1].split()[0], 16)
        assert not blocked & 1 << 11 - 1  # SIGSEGV
        assert blocked & 1 << 2 - 1  # SIGINT is for the program's own threads
