# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps beside QEMU's own use of userfaultfd: its background snapshot."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu import QemuMachine

WORDS = [
    "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M",
]  # fmt: skip
DEADLINE_S = 300.0


def background(machine: QemuMachine, uri: str) -> None:
    one = {"capability": "background-snapshot", "state": True}
    machine.monitor.execute("migrate-set-capabilities", {"capabilities": [one]})
    machine.monitor.execute("migrate", {"uri": uri})


def wait_for_snapshot(machine: QemuMachine) -> None:
    end, status = time.monotonic() + DEADLINE_S, ""
    while status != "completed":
        found = machine.monitor.execute("query-migrate")
        assert isinstance(found, dict)
        status = found["status"]
        assert time.monotonic() < end and status != "failed", found
        time.sleep(0.05)


def wait_for_status(machine: QemuMachine, status: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while (found := machine.monitor.status()) != status:
        assert time.monotonic() < end, found
        time.sleep(0.05)


def drain(reader: int) -> None:
    """Without it QEMU's monitor waits too, once a vCPU waits for the snapshot."""
    os.set_blocking(reader, True)
    while os.read(reader, 1 << 20):
        pass


def test_a_background_snapshot_after_a_dump_and_a_dump_after_it(tmp_path: Path) -> None:
    """Each leaves the guest's memory to the other."""
    with QemuMachine(WORDS) as machine:
        machine.start()
        for number in range(2):
            LiveDump(machine).save(tmp_path / f"dump{number}")
            background(machine, f"exec:cat > {tmp_path}/stream")
            wait_for_snapshot(machine)
            assert (tmp_path / "stream").stat().st_size > 0
            with open_dump(tmp_path / f"dump{number}") as dump:
                assert verify_dump(dump).ok


@contextlib.contextmanager
def unread_pipe(path: Path) -> Iterator[Callable[[], None]]:
    """No thread reads it until the function is called, or the test ends: QEMU could not end
    either."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    draining = threading.Thread(target=drain, args=(reader,), daemon=True)

    def read() -> None:
        if not draining.ident:
            draining.start()

    try:
        yield read
    finally:
        read()
        draining.join(DEADLINE_S)
        os.close(reader)


def test_no_dump_during_a_background_snapshot(tmp_path: Path) -> None:
    """It goes into a pipe that no thread reads until later."""
    pipe = tmp_path / "pipe"
    with contextlib.ExitStack() as ends:
        machine = ends.enter_context(QemuMachine(WORDS))
        read = ends.enter_context(unread_pipe(pipe))
        os.pwrite(machine.arena.fd, os.urandom(32 << 20), 1 << 20)
        machine.start()
        live = LiveDump(machine)
        live.init(tmp_path / "dump", DumpSettings(quiesce_deadline=DEADLINE_S))
        background(machine, f"exec:cat > {pipe}")
        for step in (machine.check_start, live.start):
            with pytest.raises(MachineError, match="background snapshot") as caught:
                step()
            assert caught.value.errno == errno.EBUSY
        # QEMU itself stops the guest for the snapshot's beginning.
        wait_for_status(machine, "running")
        read()
        wait_for_snapshot(machine)
        machine.check_start()
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
        live.release()
