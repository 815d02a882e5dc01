# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that are block devices: loop devices of the test's own."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from livedumpfs.cli.proof import prove_dump
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from livedumpfs.formats.table import ARMED
from livedumpfs.targets import (
    Kind,
    adopt_target,
    open_sidecar,
    open_target,
    retire_sidecar,
    sidecar_path,
)

MIB = 1 << 20
PAGE = 4096
MEMORY = b"".join(os.urandom(PAGE) if i % 3 else bytes(PAGE) for i in range(40))
GAPS = MachineInfo(
    "test", memory_map=(MemoryRange(0x3000, 20 * PAGE, 0), MemoryRange(MIB, 20 * PAGE, 20 * PAGE))
)
LoopMaker = Callable[..., str]
WriteDump = Callable[..., Plan]


@pytest.fixture(autouse=True)
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVEDUMPFS_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def run(tool: str, *arguments: str, stdin: str = "") -> None:
    path = shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{tool} is not installed")
    subprocess.run(
        [path, *arguments], input=stdin, text=True, check=True, capture_output=True, timeout=300
    )


@contextmanager
def mounted(device: str, directory: Path) -> Iterator[None]:
    directory.mkdir()
    run("mount", device, str(directory))
    try:
        yield
    finally:
        run("umount", str(directory))


def refused(code: int, device: str, cause: str, **options: bool) -> None:
    with pytest.raises(TargetError, match=cause) as caught:
        open_target(device, **options)
    assert caught.value.errno == code
    assert device in str(caught.value)


def fill(device: str, byte: bytes) -> None:
    with open(device, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        for _ in range(size // MIB):
            file.write(byte * MIB)


def test_a_device_has_a_capacity_and_no_zeros(loop_device: LoopMaker) -> None:
    device = loop_device(4 * MIB)
    with open_target(device) as target:
        assert (target.kind, target.capacity, target.created) == (Kind.BLOCK, 4 * MIB, False)
        assert target.identity == (os.stat(device).st_rdev, 0)
        target.prepare(4 * MIB)
        assert not target.reads_zero


def test_a_device_too_small_loses_nothing(loop_device: LoopMaker, write_dump: WriteDump) -> None:
    device = loop_device(2 * MIB)
    fill(device, b"s")
    with pytest.raises(TargetError, match=r"the dump needs .* the device has 2 MiB") as caught:
        write_dump(device, bytes(2 * MIB))
    assert caught.value.errno == errno.ENOSPC
    assert Path(device).read_bytes() == b"s" * 2 * MIB


def test_a_device_is_taken_by_one_only(loop_device: LoopMaker) -> None:
    device = loop_device(4 * MIB)
    with open_target(device):
        refused(errno.EBUSY, device, "mounted or in use", force=True)
    open_target(device).close()


@pytest.mark.parametrize("force", [False, True])
def test_a_mounted_device_is_refused_even_by_force(
    loop_device: LoopMaker, tmp_path: Path, force: bool
) -> None:
    device = loop_device(16 * MIB)
    run("mkfs.ext4", "-q", device)
    with mounted(device, tmp_path / "mnt"):
        refused(errno.EBUSY, device, "Device or resource busy", force=force)
        with pytest.raises(TargetError, match="mounted") as caught:
            adopt_target(os.open(device, os.O_RDWR), device, force=force)
        assert caught.value.errno == errno.EBUSY


def test_a_file_system_is_refused_unless_forced(loop_device: LoopMaker) -> None:
    device = loop_device(16 * MIB)
    run("mkfs.ext4", "-q", device)
    before = Path(device).read_bytes()
    refused(errno.EEXIST, device, "it carries an ext4 file system .use force=True to overwrite it")
    with pytest.raises(TargetError, match="ext4"):
        adopt_target(os.open(device, os.O_RDWR | os.O_EXCL), device)
    open_target(device, force=True).close()
    assert Path(device).read_bytes() == before


def test_a_file_system_made_over_a_dump_is_refused(
    loop_device: LoopMaker, write_dump: WriteDump
) -> None:
    device = loop_device(16 * MIB)
    write_dump(device, MEMORY)
    run("mkfs.ext4", "-q", device)
    refused(errno.EEXIST, device, "ext4")
    with pytest.raises(InvalidDump):
        open_dump(device)


def test_a_partition_table_is_refused_unless_forced(loop_device: LoopMaker) -> None:
    device = loop_device(16 * MIB)
    table = bytearray(512)
    table[0x1BE : 0x1BE + 16] = struct.pack("<BBBBBBBBII", 0, 0, 33, 0, 0x83, 0, 33, 8, 2048, 8192)
    table[510:] = b"\x55\xaa"
    with open(device, "r+b", buffering=0) as file:
        file.write(bytes(table))
    refused(errno.EEXIST, device, "it carries a dos partition table")
    open_target(device, force=True).close()


def test_without_blkid_nobody_guesses(
    loop_device: LoopMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = loop_device(4 * MIB)
    monkeypatch.setattr("livedumpfs.targets.check.shutil.which", lambda *a, **k: None)
    refused(errno.ENOENT, device, "blkid is not installed .install util-linux")
    open_target(device, force=True).close()


def test_a_read_only_device_is_refused(loop_device: LoopMaker) -> None:
    device = loop_device(4 * MIB, read_only=True)
    with pytest.raises(TargetError, match=device) as caught:
        open_target(device)
    # Kernels differ in whether they refuse the open or only the writes.
    assert caught.value.errno in (errno.EACCES, errno.EROFS)


def test_an_adopted_device_is_claimed(loop_device: LoopMaker) -> None:
    device = loop_device(4 * MIB)
    with adopt_target(os.open(device, os.O_RDWR), device), pytest.raises(OSError, match="busy"):
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    os.close(os.open(device, os.O_RDONLY | os.O_EXCL))


@pytest.mark.parametrize("format", ["elf", "raw"])
def test_a_dump_over_stale_data_is_exact(
    loop_device: LoopMaker, write_dump: WriteDump, format: str
) -> None:
    device = loop_device(4 * MIB)
    fill(device, b"s")
    write_dump(device, MEMORY, format=format, machine=GAPS, granule=4 * PAGE)
    with open_dump(device) as dump:
        assert dump.verdict == "consistent"
        assert dump.read_arena(0, len(MEMORY)) == MEMORY
        assert prove_dump(dump).ok
    if format == "raw":
        content = Path(device).read_bytes()
        assert content[:0x3000] == bytes(0x3000), "the gap at the start"
        behind = 0x3000 + 20 * PAGE
        assert content[behind:MIB] == bytes(MIB - behind), "the gap between the ranges"
        assert content[0x3000:behind] == MEMORY[: 20 * PAGE]


def test_a_sealed_dump_passes_readelf_from_the_first_page(
    loop_device: LoopMaker, write_dump: WriteDump, tmp_path: Path
) -> None:
    """The extract tool of the kernel patches reads the headers in the first 4096 bytes."""
    device = loop_device(4 * MIB)
    write_dump(device, MEMORY, machine=GAPS)
    (tmp_path / "head").write_bytes(Path(device).read_bytes()[:4096])
    tool = shutil.which("readelf")
    if tool is None:
        pytest.skip("readelf is not installed")
    done = subprocess.run(
        [tool, "-lW", tmp_path / "head"], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.count("LOAD") == 2


def test_formats_follow_each_other_on_a_device(
    loop_device: LoopMaker, write_dump: WriteDump, state_directory: Path
) -> None:
    device = loop_device(4 * MIB)
    status = os.stat(device)
    place = sidecar_path(device, status)
    number = f"{os.major(status.st_rdev)}-{os.minor(status.st_rdev)}"
    assert place == str(state_directory / f"block-{number}.ldfs")
    write_dump(device, MEMORY, format="raw", machine=GAPS)
    assert stat.S_IMODE(state_directory.stat().st_mode) == 0o700
    with open_dump(device) as dump:
        assert (dump.format, dump.sidecar) == ("raw", place)
    write_dump(device, MEMORY[::-1], format="elf")
    with open_dump(device) as dump:
        assert dump.format == "elf", "the sidecar file of the older dump is not believed"
    assert retire_sidecar(place)
    write_dump(device, MEMORY, format="raw", machine=GAPS, until="opening")
    with open_dump(device) as dump:
        assert (dump.format, dump.verdict) == ("raw", "incomplete")
        assert dump.state_counts()[ARMED] == 40


def test_a_sidecar_of_what_was_on_the_device_before_is_not_believed(
    loop_device: LoopMaker, write_dump: WriteDump
) -> None:
    device = loop_device(4 * MIB)
    write_dump(device, MEMORY, format="raw", machine=GAPS)
    fill(device, b"n")
    with pytest.raises(InvalidDump, match="describes something else"):
        open_dump(device)


def test_a_device_that_fills_up_says_so(
    loop_device: LoopMaker, tmp_path: Path, write_dump: WriteDump
) -> None:
    """A sparse loop file on a small tmpfs: the device promises more than there is."""
    small = tmp_path / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small))
    try:
        backing = small / "backing"
        with open(backing, "xb") as file:
            file.truncate(16 * MIB)
        # A file there, not a device: the page cache of a device would hide the error until sync.
        with open_target(backing, force=True) as target:
            target.prepare(16 * MIB)
            with pytest.raises(TargetError, match="No space left on device") as caught:
                target.pwrite(b"x" * 2 * MIB, 0)
            assert caught.value.errno == errno.ENOSPC
        device = loop_device(16 * MIB, directory=small)
        with open_target(device) as target:
            target.pwrite(b"x" * 2 * MIB, 0)
            with pytest.raises(TargetError, match=f"cannot sync {device}"):
                target.sync()
            target.close()
        run("losetup", "-d", device)
    finally:
        run("umount", "-l", str(small))


def test_a_sidecar_on_a_device_is_refused(loop_device: LoopMaker) -> None:
    with pytest.raises(TargetError, match="it is a block device"):
        open_sidecar(loop_device(4 * MIB))
