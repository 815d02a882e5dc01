# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump mount` of dumps that lie in files and on a device, read by the kernel and by gdb."""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from livedumpfs.formats.table import ARMED, LOST, SAVED
from tests.fixtures import forks
from tests.fixtures.mounted_dumps import Mounted

DEADLINE = 300.0
PAGE = 4096
MEMORY = b"".join((i * 0x0101).to_bytes(8, "little") * 512 for i in range(1, 513))
MACHINE = MachineInfo(
    "flat",
    vcpus=1,
    memory_map=(MemoryRange(0, 256 * PAGE, 0), MemoryRange(1 << 22, 256 * PAGE, 256 * PAGE)),
)
REGISTERS = [{"rip": 0x1234, "rsp": 0x8000}]
WriteDump = Callable[..., Plan]


Mounter = Callable[..., Mounted]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounter]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    made: list[Mounted] = []

    def make(source: str | Path, *options: str) -> Mounted:
        made.append(Mounted(str(source), tmp_path / f"mount-{len(made)}", *options))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.clean()


@pytest.mark.parametrize("layout", ["elf", "raw", "kdump"])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, None])
def test_the_tree_and_each_way_to_end_it(
    layout: str, end: signal.Signals | None, mount: Mounter, tmp_path: Path, write_dump: WriteDump
) -> None:
    write_dump(
        tmp_path / "dump", MEMORY, format=layout, machine=MACHINE, registers=REGISTERS,
        meta={"registers": REGISTERS},
    )  # fmt: skip
    mounted = mount(tmp_path / "dump")
    root = mounted.root
    assert os.listdir(mounted.place) == ["snapshot"]
    assert sorted(os.listdir(root)) == ["info.json", "mem.lime", "mem.raw", "vmcore"]
    raw = (root / "mem.raw").read_bytes()
    low, high = MEMORY[: 256 * PAGE], MEMORY[256 * PAGE :]
    assert raw == low.ljust(1 << 22, b"\0") + high
    lime = (root / "mem.lime").read_bytes()
    assert lime[32 : 32 + len(low)] == low and lime[64 + len(low) :] == high
    assert (root / "vmcore").read_bytes().endswith(MEMORY)
    told = json.loads((root / "info.json").read_text())
    assert told["verdict"] == "consistent" and told["registers"][0]["rip"] == 0x1234
    with (
        open(root / "mem.raw", "rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as view,
    ):
        assert view[PAGE - 3 : PAGE + 3] == MEMORY[PAGE - 3 : PAGE + 3]
    for action in (
        lambda: os.open(root / "mem.raw", os.O_RDWR),
        lambda: os.unlink(root / "vmcore"),
    ):
        with pytest.raises(OSError) as caught:
            action()
        assert caught.value.errno in (errno.EROFS, errno.EACCES)
    if end is None:
        subprocess.run(["fusermount", "-u", str(mounted.place)], timeout=300, check=True)
    else:
        mounted.process.send_signal(end)
    assert mounted.ended() == ""


def test_missing_pages_are_errors_and_their_neighbours_are_not(
    mount: Mounter, tmp_path: Path, write_dump: WriteDump
) -> None:
    states = [SAVED] * 512
    states[10], states[300] = LOST, ARMED
    write_dump(tmp_path / "dump", MEMORY, machine=MACHINE, states=states, until="table")
    mounted, zeros = mount(tmp_path / "dump"), mount(tmp_path / "dump", "--zero-missing")
    fd = os.open(mounted.root / "mem.raw", os.O_RDONLY)
    try:
        for page in range(256):
            if page != 10:
                assert os.pread(fd, PAGE, page * PAGE) == MEMORY[page * PAGE : (page + 1) * PAGE]
                continue
            with pytest.raises(OSError) as caught:
                os.pread(fd, 1, page * PAGE + 7)
            assert caught.value.errno == errno.EIO
        with pytest.raises(OSError) as caught:
            os.pread(fd, 1, (1 << 22) + 44 * PAGE)
        assert caught.value.errno == errno.EIO
    finally:
        os.close(fd)
    shown = (zeros.root / "mem.raw").read_bytes()
    assert shown[: 11 * PAGE] == MEMORY[: 10 * PAGE] + bytes(PAGE)
    assert shown[11 * PAGE : 256 * PAGE] == MEMORY[11 * PAGE : 256 * PAGE]
    for one in (mounted, zeros):
        one.process.send_signal(signal.SIGTERM)
        assert one.ended().endswith("dump is incomplete\n")


def test_a_dump_on_a_device_read_by_gdb(
    mount: Mounter, loop_device: Callable[..., str], write_dump: WriteDump, tmp_path: Path
) -> None:
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("gdb is not installed")
    device = loop_device(8 << 20)
    write_dump(device, MEMORY, machine=MACHINE, registers=REGISTERS, granule=16 * PAGE)
    mounted, plain = mount(device), tmp_path / "plain"
    # A converted file is read as well, also while the dump is mounted.
    forks.run(
        [sys.executable, "-m", "livedumpfs.cli", "convert", device, str(plain)],
        timeout=DEADLINE, check=True, capture_output=True,
    )  # fmt: skip
    for core in (mounted.root / "vmcore", plain):
        done = subprocess.run(
            [gdb, "-nx", "-batch", "-ex", f"core-file {core}", "-ex", "p/x $rip",
             "-ex", "x/1xg 0x3000", "-ex", f"x/1xg {(1 << 22) + PAGE:#x}"],
            capture_output=True, text=True, timeout=DEADLINE, check=True,
            env={**os.environ, "DEBUGINFOD_URLS": ""},
        )  # fmt: skip
        assert "= 0x1234" in done.stdout, done
        for page in (3, 257):
            assert f"{(page + 1) * 0x0101:#018x}" in done.stdout, done
    mounted.process.send_signal(signal.SIGINT)
    mounted.ended()


def test_the_mount_of_a_killed_process_is_taken_over(
    mount: Mounter, tmp_path: Path, write_dump: WriteDump
) -> None:
    write_dump(tmp_path / "dump", MEMORY)
    first = mount(tmp_path / "dump")
    first.process.kill()
    first.process.communicate(timeout=DEADLINE)
    assert first.is_mounted()
    again = forks.start(
        [sys.executable, "-m", "livedumpfs.cli", "mount", str(tmp_path / "dump"), str(first.place)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert again.stdout and again.stdout.readline() == f"snapshot {first.root}\n"
        assert (first.root / "mem.raw").read_bytes() == MEMORY
        again.terminate()
        again.communicate(timeout=DEADLINE)
        assert again.returncode == 0
    finally:
        if again.poll() is None:
            again.kill()
            again.communicate(timeout=DEADLINE)
