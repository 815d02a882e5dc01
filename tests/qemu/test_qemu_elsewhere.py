# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's state that goes from a QEMU of ours to one without us, and the other way."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.dump import LiveDump
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.machines.qemu.monitor import Monitor
from tests.qemu.this_qemu import skip_what_it_refuses

DEADLINE_S = 300.0
BASE = [
    "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M",
]  # fmt: skip
SECRET = os.urandom(4096)
AT = 8 << 20


def migrated(monitor: Monitor) -> None:
    end, status = time.monotonic() + DEADLINE_S, ""
    while status != "completed":
        found = monitor.execute("query-migrate")
        assert isinstance(found, dict)
        status = found.get("status", "")
        assert time.monotonic() < end and status != "failed", found
        time.sleep(0.05)


class Plain:
    """A QEMU without us."""

    def __init__(self, folder: Path, *words: str) -> None:
        path = str(folder / "plain")
        self.process = subprocess.Popen(
            [*BASE, "-S", "-qmp", f"unix:{path},server=on,wait=off", *words]
        )
        try:
            self.monitor = Monitor(path, DEADLINE_S)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def memory(self, file: Path) -> bytes:
        arguments: dict[str, object] = {"val": AT, "size": 4096, "filename": str(file)}
        self.monitor.execute("pmemsave", arguments)
        return file.read_bytes()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[list[Plain]]:
    made: list[Plain] = []
    yield made
    for one in made:
        one.monitor.close()
        one.end()


@pytest.mark.parametrize("kind", ["pc", "q35", "pc-i440fx-3.1", "microvm"])
def test_a_migration_to_a_qemu_without_us(tmp_path: Path, plain: list[Plain], kind: str) -> None:
    skip_what_it_refuses([*BASE[1:], "-M", kind])
    stream = tmp_path / "stream"
    with QemuMachine([*BASE, "-M", kind]) as machine:
        machine.start()
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
        machine.monitor.execute("stop")
        os.pwrite(machine.arena.fd, SECRET, AT)
        machine.monitor.execute("migrate", {"uri": f"exec:cat > {stream}"})
        migrated(machine.monitor)
    plain.append(Plain(tmp_path, "-M", kind, "-incoming", f"exec:cat {stream}"))
    migrated(plain[0].monitor)
    assert plain[0].memory(tmp_path / "memory") == SECRET


def test_a_snapshot_made_without_us(tmp_path: Path, plain: list[Plain]) -> None:
    """And one of ours, loaded there."""
    disk = tmp_path / "disk.qcow2"
    drive = ["-drive", f"file={disk},format=qcow2,if=none,id=d0"]
    make_disk(disk)
    plain.append(Plain(tmp_path, *drive))
    plain[0].monitor.execute("cont")
    assert plain[0].monitor.hmp("savevm theirs") == ""
    plain[0].monitor.close()
    plain[0].end()
    with QemuMachine([*BASE, *drive, "-loadvm", "theirs"]) as machine:
        machine.start()
        assert LiveDump(machine).save(tmp_path / "dump") == "consistent"
        machine.monitor.execute("stop")
        os.pwrite(machine.arena.fd, SECRET, AT)
        assert machine.monitor.hmp("savevm ours") == ""
    (tmp_path / "plain").unlink()
    plain.append(Plain(tmp_path, *drive, "-loadvm", "ours"))
    assert plain[1].memory(tmp_path / "memory") == SECRET


def make_disk(path: Path) -> None:
    """An empty one of 16 MiB, by QEMU itself: qemu-img may not be there."""
    path.touch()
    folder = path.parent
    maker = Plain(folder, "-blockdev", f"file,node-name=f,filename={path}")
    try:
        options = {"driver": "qcow2", "file": "f", "size": 16 << 20}
        maker.monitor.execute("blockdev-create", {"job-id": "j", "options": options})
        end = time.monotonic() + DEADLINE_S
        jobs = [{"status": ""}]
        while jobs[0]["status"] != "concluded":
            assert time.monotonic() < end
            found = maker.monitor.execute("query-jobs")
            assert isinstance(found, list)
            jobs = found
    finally:
        maker.monitor.close()
        maker.end()
        (folder / "plain").unlink()
