# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a guest sees its RAM: texts as QEMU 7.2 prints them, devices left out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.machines.qemu.guest_memory import Mapping, open_mapped
from livedumpfs.machines.qemu.memory_map import read_left_out, read_memory_map

MIB, GIB = 1 << 20, 1 << 30

BIOS = """\
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
  00000000000e0000-00000000000fffff (prio 0, rom): pc.bios @0000000000020000
"""
SHADOWED = """\
  00000000000c0000-00000000000cafff (prio 0, rom): ram0 @00000000000c0000
  00000000000cb000-00000000000cdfff (prio 0, ram): ram0 @00000000000cb000
  00000000000ce000-00000000000e7fff (prio 0, rom): ram0 @00000000000ce000
  00000000000e8000-00000000000effff (prio 0, ram): ram0 @00000000000e8000
  00000000000f0000-00000000000fffff (prio 0, rom): ram0 @00000000000f0000
"""
LOW = "  0000000000000000-{:016x} (prio 0, ram): ram0\n"
ABOVE_1M = "  0000000000100000-{:016x} (prio 0, ram): ram0 @0000000000100000\n"
HIGH = "  0000000100000000-{:016x} (prio 0, ram): ram0 @{:016x}\n"
VGA = """\
  00000000000a0000-00000000000affff (prio 2, ram): alias vga.chain4 @0000000000000000 vga.vram
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram
"""


def view(number: int, lines: str, *, space: str = "memory", root: str = "system") -> str:
    return (
        f'FlatView #{number}\n AS "{space}", root: {root}\n AS "cpu-{space}-0", root: {root}\n'
        f" Root memory region: {root}\n{lines}\n"
    )


def io_view(number: int) -> str:
    line = "  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan\n"
    return (
        f'FlatView #{number}\n AS "I/O", root: io\n Root memory region: io\n{line}\n'
        f'FlatView #{number + 1}\n AS "mch", root: bus master container\n'
        " Root memory region: (none)\n  No rendered FlatView\n\n"
    )


def test_before_the_firmware_ran() -> None:
    text = io_view(0) + view(2, LOW.format(0xBFFFF) + BIOS + ABOVE_1M.format(256 * MIB - 1))
    assert read_memory_map(text, "ram0", 256 * MIB) == [PhysicalRange(0, 256 * MIB, 0)]


@pytest.mark.parametrize(("low", "name"), [(2 * GIB, "q35"), (3 * GIB, "pc")])
def test_ram_on_both_sides_of_the_pci_hole(low: int, name: str) -> None:
    del name
    high = HIGH.format(4 * GIB + 6 * GIB - low - 1, low)
    lines = LOW.format(0x9FFFF) + SHADOWED + ABOVE_1M.format(low - 1) + VGA + high
    assert read_memory_map(view(0, lines) + io_view(1), "ram0", 6 * GIB) == [
        PhysicalRange(0, low, 0),
        PhysicalRange(4 * GIB, 6 * GIB - low, low),
    ]


def test_the_view_that_shows_most_is_taken() -> None:
    """OVMF hides 8 MiB below the end of low RAM from all but system management mode."""
    rest = SHADOWED + VGA + HIGH.format(5 * GIB - 1, 2 * GIB)
    hidden = LOW.format(0x9FFFF) + ABOVE_1M.format(2 * GIB - 8 * MIB - 1) + rest
    shown = LOW.format(0xBFFFF) + ABOVE_1M.format(2 * GIB - 1) + rest
    smm = view(1, shown, space="cpu-smm-0", root="memory")
    expected = [PhysicalRange(0, 2 * GIB, 0), PhysicalRange(4 * GIB, GIB, 2 * GIB)]
    for text in (view(0, hidden) + smm, smm + view(0, hidden), view(0, hidden)):
        assert read_memory_map(text, "ram0", 3 * GIB) == expected


def test_what_a_device_sees_is_not_the_guests_map() -> None:
    device = (
        'FlatView #0\n AS "e1000", root: bus master container\n Root memory region: x\n'
        "  0000000010000000-000000002fffffff (prio 0, ram): ram0\n\n"
    )
    text = device + view(1, LOW.format(0x9FFFF) + ABOVE_1M.format(512 * MIB - 1))
    assert read_memory_map(text, "ram0", 512 * MIB) == [PhysicalRange(0, 512 * MIB, 0)]


@pytest.mark.parametrize("name", ["/objects/ram0", "ram0"])
@pytest.mark.parametrize("end", ["", " KVM"])
def test_names_of_older_machines_and_marks_of_accelerators(name: str, end: str) -> None:
    lines = LOW.format(0x9FFFF) + ABOVE_1M.format(64 * MIB - 1)
    text = view(0, lines.replace("ram0", name).replace("\n", f"{end}\n"))
    assert read_memory_map(text, "ram0", 64 * MIB) == [PhysicalRange(0, 64 * MIB, 0)]


def test_ids_are_no_patterns() -> None:
    text = view(0, LOW.format(MIB - 1).replace("ram0", "pcxram"))
    with pytest.raises(MachineError, match=r"no memory of the backend 'pc.ram'"):
        read_memory_map(text, "pc.ram", MIB)


@pytest.mark.parametrize(
    ("lines", "size", "sentence"),
    [
        ("", MIB, "no memory of the backend"),
        (LOW.format(2 * MIB - 1), MIB, "behind its end"),
        (LOW.format(MIB - 1) + HIGH.format(4 * GIB + MIB - 1, 0), MIB, "shown twice"),
        (LOW.format(MIB - 1), 64 * MIB, "nowhere in the guest"),
        # Neither neighbour has room for what is hidden between them.
        (
            LOW.format(MIB - 1) + "  0000000000100000-00000000001fffff (prio 0, ram): ram0 @200000",
            3 * MIB,
            "nowhere in the guest",
        ),
    ],
)
def test_maps_that_cannot_be_understood(lines: str, size: int, sentence: str) -> None:
    with pytest.raises(MachineError, match=sentence):
        read_memory_map(view(0, lines), "ram0", size)


def test_a_text_that_is_none() -> None:
    with pytest.raises(MachineError, match="no memory of the backend"):
        read_memory_map("unknown command: 'info mtree'\n", "ram0", MIB)


def test_a_file_of_a_mount_that_answers_nothing_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU may have inherited it."""
    with (tmp_path / "ram").open("wb") as ram:
        status, real = os.fstat(ram.fileno()), os.stat

        def stat(path: str) -> os.stat_result:
            if not path.endswith(f"/{ram.fileno()}"):
                raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
            return real(path)

        with monkeypatch.context() as patch:
            patch.setattr("os.stat", stat)
            fd = open_mapped(os.getpid(), Mapping(0, 0, status.st_dev, status.st_ino))
        assert os.path.samestat(os.fstat(fd), status)
        os.close(fd)


BLOCKS = """\
              Block Name    PSize              Offset               Used              Total
                    ram0    2 MiB  0x0000000000000000 0x0000000004000000 0x0000000004000000
   0000:00:02.0/vga.vram    4 KiB  0x0000000004080000 0x0000000001000000 0x0000000001000000
    /rom@etc/acpi/tables    4 KiB  0x0000000005100000 0x0000000000020000 0x0000000000200000
                 pc.bios    4 KiB  0x0000000004000000 0x0000000000040000 0x0000000000040000
"""


@pytest.mark.parametrize("name", ["ram0", "/objects/ram0"])
def test_memory_that_is_in_no_dump(name: str) -> None:
    text = BLOCKS.replace("ram0", name)
    newer = text.replace("000\n", "000  rw 0x00007f1234000000\n")
    for shown in (text, newer):
        assert read_left_out(shown, "ram0") == {
            "0000:00:02.0/vga.vram": 16 * MIB,
            "pc.bios": MIB // 4,
        }
    assert read_left_out("", "ram0") == {}
