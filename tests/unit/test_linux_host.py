# SPDX-License-Identifier: GPL-2.0-or-later
"""What `host --linux` refuses, each in one sentence, and the device tree that it gives to the
kernel."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from livedumpfs.cli.main import main
from livedumpfs.cli.outcome import Exit
from livedumpfs.errors import MachineError
from livedumpfs.machines import LinuxMachine
from livedumpfs.machines.riscv import linux_machine
from livedumpfs.machines.riscv.board_tree import board_tree
from livedumpfs.machines.riscv.device_tree import Node, flatten
from livedumpfs.machines.riscv.disk_image import DiskImage

MIB = 1 << 20


def image(size: int = 4096, magic: bytes = b"RSC\x05") -> bytes:
    """A flat Image of nothing, which takes `size` bytes at 2 MiB."""
    head = struct.pack("<8xQQQ16xQ4s4x", 2 * MIB, size, 0, 0, magic)
    return head.ljust(4096, b"\0")


def at(offset: int, mark: bytes) -> bytes:
    return bytes(offset) + mark + bytes(4096)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(image())
    return path


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "it is empty"),
        (b"text", "it is no Linux kernel for riscv64"),
        (at(0x202, b"HdrS"), "it is a kernel for x86, not for riscv64"),
        (at(56, b"ARM\x64"), "it is a kernel for arm64, not for riscv64"),
        (at(4, b"zimg"), "it is a compressed EFI program, not a flat Image"),
        (b"\x1f\x8b" + bytes(64), "it is compressed; gunzip it first"),
        (b"\x7fELF" + bytes(64), "it is an ELF file, not a flat Image"),
        (image(size=16), "it is no Linux kernel for riscv64"),
        (image(magic=b"RSC\x06"), "it is no Linux kernel for riscv64"),
    ],
)
def test_what_is_no_kernel_for_it(
    data: bytes, cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(data)
    assert main(["host", "--linux", str(path), "--mount", str(tmp_path / "none")]) == Exit.FAILED
    said = capsys.readouterr().err
    assert said.startswith(f"livedump: error: cannot boot kernel {path}: {cause}")
    assert said.count("\n") == 1


def test_a_kernel_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match=r"^cannot read kernel /no/such: No such file"):
        LinuxMachine("64MiB", "/no/such")
    monkeypatch.setattr(linux_machine, "FETCHED", tmp_path)
    with pytest.raises(MachineError, match=r"was not fetched .*make -C guest/linux riscv64"):
        LinuxMachine("64MiB")


def test_an_initrd_that_is_not_there(kernel: Path) -> None:
    with pytest.raises(MachineError, match=r"^cannot read initrd /no/such: No such file"):
        LinuxMachine("64MiB", kernel, initrd="/no/such")


def test_too_little_memory(kernel: Path, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(3 * MIB))
    with pytest.raises(MachineError, match=r"RAM is 7 MiB, and kernel and initrd alone take 7.0"):
        LinuxMachine("7MiB", kernel, initrd=initrd)
    LinuxMachine("8MiB", kernel, initrd=initrd).close()


def test_a_disk_that_is_not_there(kernel: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"^cannot open disk /no/such: No such file"):
        LinuxMachine("64MiB", kernel, disk="/no/such")
    with pytest.raises(MachineError, match="it is neither a file nor a block device"):
        DiskImage.open(Path(os.devnull), read_only=False)
    odd = tmp_path / "odd"
    odd.write_bytes(bytes(700))
    with pytest.raises(MachineError, match="its size is 700 bytes, not a multiple of 512"):
        DiskImage.open(odd, read_only=False)


def test_a_disk_that_must_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1024))
    usual = os.open

    def refusing(path: object, flags: int, *rest: int) -> int:
        if path == disk and flags & os.O_RDWR:
            raise OSError(30, "Read-only file system")
        return usual(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(MachineError, match=r"Read-only file system .*--read-only"):
        DiskImage.open(disk, read_only=False)
    found = DiskImage.open(disk, read_only=True)
    assert (found.size, found.read_only) == (1024, True)
    found.close()


def test_a_disk_has_one_machine(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1024))
    first = DiskImage.open(disk, read_only=False)
    with pytest.raises(MachineError, match="another program has it"):
        DiskImage.open(disk, read_only=True)
    fcntl.flock(first.descriptor, fcntl.LOCK_UN)
    second = DiskImage.open(disk, read_only=True)
    third = DiskImage.open(disk, read_only=True)
    for one in (first, second, third):
        one.close()


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--disk", "d"], "--disk is for --linux"),
        (["--append", "quiet"], "--append is for --linux"),
        (["--linux", "--guest", "g"], "--guest and --linux are two machines"),
        (["--linux", "--vcpus", "2"], "Linux has one vCPU here"),
        (["--linux", "--idle"], "--idle is for the built-in guest"),
        (["--linux", "--read-only"], "--read-only is for --disk"),
    ],
)
def test_options_of_another_machine(
    words: list[str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", *words]) == Exit.USAGE
    said = capsys.readouterr().err
    assert cause in said and said.count("\n") == 1


def test_a_tree_has_its_properties() -> None:
    found = flatten(Node({"a": 1, "empty": ()}, {"below@1": Node({"a": ("x", "yz")})}))
    magic, total, structs, strings, _, version = struct.unpack_from(">6I", found)
    assert (magic, total, version) == (0xD00DFEED, len(found), 17)
    assert found[strings:] == b"a\0empty\0"
    words = struct.pack(">4sIIII", struct.pack(">I", 1), 0, 3, 4, 0)
    assert found[structs:].startswith(words)
    assert b"below@1\0" in found and b"x\0yz\0" in found


@pytest.mark.skipif(not shutil.which("dtc"), reason="dtc is not installed")
def test_dtc_reads_the_boards_tree(tmp_path: Path) -> None:
    path = tmp_path / "tree"
    path.write_bytes(board_tree(64 * MIB, "quiet", (0x81000000, 0x81001000), b"s" * 8, disk=True))
    run = subprocess.run(
        ["dtc", "-I", "dtb", "-O", "dts", path], capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip
    assert 'bootargs = "quiet"' in run.stdout and "virtio@10001000" in run.stdout
