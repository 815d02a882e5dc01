# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of an attached host while the stream is on its way: none sees a page before it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aftermath import wait_for

from livedumpfs.units import PAGE_SIZE
from tests.qemu.instants import check_instant
from tests.qemu.running_guests import RunningGuest, firmware_words, running

MEMORY = 128
"""MiB, of a guest that has something in each page."""
DEADLINE_S = 300.0


def begin_and_halt(guest: RunningGuest, shell: Any, device: str) -> Any:
    """START, in the middle of whose stream QEMU stands still."""
    shell.run("init", "--no-target", "--device", device)
    start = shell.begin("start", "--device", device)
    wait_for(lambda: guest.migration() == "active", guest.migration)
    os.kill(guest.pid, signal.SIGSTOP)
    return start


def test_nothing_is_there_before_all_is(firmware: Path, shell: Any, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    with running(tmp_path, firmware_words(firmware, f"{MEMORY}M")) as guest:
        guest.boot()
        host = shell.begin("attach", guest.socket, "--mount", str(mount))
        host.stdout.readline()
        device = host.stdout.readline().split()[1]
        for number in range(2):
            start = begin_and_halt(guest, shell, device)
            try:
                assert start.poll() is None
                assert not (mount / "snapshot" / "mem.raw").exists()
                assert not (mount / "snapshot" / "vmcore").exists()
                with pytest.raises(OSError, match="No data available"), open(mount / "mem") as mem:
                    mem.read(1)  # also when it has had the memory of an earlier START
            finally:
                os.kill(guest.pid, signal.SIGCONT)
            assert start.wait(DEADLINE_S) == 0, number
            content = (mount / "snapshot" / "mem.raw").read_bytes()
            check_instant(content)
            pages = np.frombuffer(content, np.uint8).reshape(-1, PAGE_SIZE)
            assert pages.any(axis=1).mean() > 0.9, "it has stored to nearly all of them"
            shell.run("release", "--device", device)
            guest.goes_on()
