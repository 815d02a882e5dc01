# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests into a store: of a QEMU under us, which writes to the pipe itself, and of one that runs
already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump, verify_store
from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.stores import open_store
from livedumpfs.units import PAGE_SIZE
from tests.qemu.running_guests import firmware_words, running


@pytest.mark.timeout(600)
def test_a_qemu_under_us(firmware: Path, tmp_path: Path) -> None:
    """Its dumps have what their own checksums say. Changes of it are not tracked, and it is said
    why."""
    place = str(tmp_path / "store")
    words = ["qemu-system-x86_64", *firmware_words(firmware), "-display", "none"]
    with QemuMachine(words) as machine:
        machine.start()
        with LiveDump(machine) as live:
            for _ in range(2):
                live.save(f"store:{place}", DumpSettings(track=True))
                found = live.increment
                assert (found.tracks, found.omitted, live.bases) == (False, 0, ())
                assert found.reason == (
                    "changes of a qemu machine cannot be tracked: that needs backend sigsegv, and "
                    "it has uffd alone; set track to 0"
                )
            live.save(tmp_path / "file")
    with open_store(place) as store:
        assert verify_store(store).problems == [] and len(store.names()) == 2
    with open_dump(f"{place}#latest") as dump, open_dump(tmp_path / "file") as file:
        assert verify_dump(dump).ok and verify_dump(file).ok
        assert dump.memory_map == file.memory_map
        assert dump.granule_size == file.granule_size


@pytest.mark.timeout(600)
def test_a_qemu_that_runs_already(firmware: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    with running(tmp_path, firmware_words(firmware)) as guest:
        guest.boot()
        with AttachedMachine(guest.socket) as machine:
            guest.other.execute("stop")
            wanted = guest.memory(machine.memory_map, machine.arena.size)
            live = LiveDump(machine)
            live.save(f"store:{place}", DumpSettings(track=True))
            assert live.increment.reason == (
                "changes of a qemu-attached machine cannot be tracked: all of its memory comes "
                "anew with each dump; set track to 0"
            )
            guest.other.execute("cont")
            guest.goes_on()
            size = machine.arena.size
    with open_dump(f"{place}#latest") as dump:
        assert verify_dump(dump).ok
        got = np.frombuffer(dump.read_arena(0, size), np.uint8).reshape(-1, PAGE_SIZE)
        assert not (got != wanted).any()
