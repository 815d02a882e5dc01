# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs that are plugged into a guest, at each moment of a dump, with a QEMU without a kernel."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.control.report import registers_json, registers_text
from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu import QemuMachine

WORDS = [
    "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-display", "none", "-nodefaults",
    "-m", "64M", "-smp", "1,sockets=4,maxcpus=4",
]  # fmt: skip
DEADLINE_S = 300.0
PATIENT = DumpSettings(quiesce_deadline=DEADLINE_S)


@pytest.fixture
def machine() -> Iterator[QemuMachine]:
    with QemuMachine(WORDS) as found:
        found.start()
        yield found


def plug(machine: QemuMachine, socket: int) -> None:
    machine.monitor.execute(
        "device_add",
        {
            "driver": "qemu64-x86_64-cpu",
            "id": f"cpu{socket}",
            "socket-id": socket,
            "core-id": 0,
            "thread-id": 0,
        },
    )


def shown(machine: QemuMachine) -> dict[int, tuple[bool, bool]]:
    """By number: whether it is live, and was there at START; in both files the same."""
    found = json.loads(registers_json(machine))
    then = found["snapshot"] or [None] * len(found["numbers"])
    pairs = zip(found["live"], then, strict=True)
    both = dict(zip(found["numbers"], ((bool(a), bool(b)) for a, b in pairs), strict=True))
    blocks = registers_text(machine).split("\n\n")
    words = {int(one.split()[1]): one.splitlines()[1].split()[1:] for one in blocks}
    assert {k: (v[0] != "-", len(v) == 2) for k, v in words.items()} == both
    return both


def notes(target: Path) -> int:
    """NT_PRSTATUS notes, all of vCPUs that run."""
    with open_dump(target) as dump:
        assert verify_dump(dump).ok
        assert all(one["cs"] for one in dump.registers)
        assert len(dump.meta["registers"]) == len(dump.registers)
        return len(dump.registers)


@pytest.mark.parametrize("kind", ["elf", "kdump", "raw"])
def test_a_vcpu_at_each_moment_of_a_dump(machine: QemuMachine, tmp_path: Path, kind: str) -> None:
    settings = DumpSettings(format=kind, quiesce_deadline=DEADLINE_S)
    live, number = LiveDump(machine), 2
    plug(machine, 3)  # before the first dump, not the next one in the row
    assert shown(machine) == {0: (True, False), 3: (True, False)}
    for target in (tmp_path / "first", tmp_path / "second"):
        live.init(target, settings)
        live.start()
        assert len(live.snapshot.registers) == machine.vcpus == number
        if number == 2:
            plug(machine, 1)  # between START and RELEASE: behind those that the dump has
            assert shown(machine) == {0: (True, True), 1: (True, False), 3: (True, True)}
            assert len(live.snapshot.registers) == 2
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
        live.release()
        assert notes(target) == number
        number += 1
    assert shown(machine) == {0: (True, True), 1: (True, True), 3: (True, True)}
    assert machine.metadata()["vcpus"] == machine.vcpus == 3


def test_a_vcpu_between_init_and_start(machine: QemuMachine, tmp_path: Path) -> None:
    """There is no room for it in the target; in memory there is."""
    live = LiveDump(machine)
    live.init(tmp_path / "dump", PATIENT)
    plug(machine, 1)
    with pytest.raises(MachineError, match="2 vCPUs now, INIT saw 1") as caught:
        live.start()
    assert caught.value.errno == errno.EBUSY
    live.release()
    assert machine.monitor.status() == "running"
    live.init(None, PATIENT.without_target())
    plug(machine, 2)
    live.start()
    assert len(live.snapshot.registers) == 3
    live.release()
    assert live.save(tmp_path / "dump", PATIENT) == "consistent"
    assert notes(tmp_path / "dump") == 3


def test_a_vcpu_that_went_between_init_and_start(
    machine: QemuMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest without a kernel gives none back: INIT sees one that is not there."""
    live = LiveDump(machine)
    with monkeypatch.context() as patch:
        patch.setattr(QemuMachine, "vcpus", property(lambda _: 3))
        live.init(tmp_path / "dump", PATIENT)
    live.start()
    live.sweep()
    assert live.finish(DEADLINE_S) == "consistent"
    live.release()
    assert notes(tmp_path / "dump") == 1
