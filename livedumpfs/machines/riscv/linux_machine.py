# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux in this process: the RISC-V board of the C core (native/board/) with a kernel on it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from livedumpfs.core.arena import Arena, wanted_size
from livedumpfs.core.capi import CData, check, ffi, lib
from livedumpfs.errors import LivedumpError, MachineError
from livedumpfs.formats.note import Note
from livedumpfs.huge import Huge
from livedumpfs.machines.emulated import WHY_SIZE, EmulatedMachine, EmulatorCore, unicorn_library
from livedumpfs.machines.kernels.information import KernelInformation
from livedumpfs.machines.kernels.information_note import INFORMATION_ROOM, information_note
from livedumpfs.machines.kernels.riscv_kernel import RISCV_KERNEL
from livedumpfs.machines.kernels.searched_arena import SearchedArena
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.machines.riscv.board_tree import board_tree
from livedumpfs.machines.riscv.disk_image import DiskImage
from livedumpfs.machines.riscv.kernel_image import KernelImage, read_part
from livedumpfs.units import PAGE_SIZE, align_up, format_size

EM_RISCV: Final = 243
FETCHED: Final = Path(__file__).resolve().parents[3] / "guest" / "linux" / "build" / "riscv64"
"""Where `make -C guest/linux riscv64` of a source tree puts Debian's kernel and a system for it."""
ARGUMENTS: Final = "console=ttyS0 no4lvl"
"""Of every kernel: the serial line, and page tables as the emulated hart has them."""

_RAM: Final = lib.LDFS_BOARD_RAM
_TREE_ROOM: Final = 2 << 20
"""At the end of RAM; a kernel maps the tree's 2 MiB whole."""
_SEED_BYTES: Final = 64


class LinuxMachine(EmulatedMachine):
    """A computer with one RISC-V hart, a serial line, and perhaps a disk.

    ram_size: bytes or "512MiB". kernel: a flat Image; None: Debian's, if it was fetched. initrd:
    None: the fetched kernel's own, or none. disk: a file or block device. read_only: the guest
    cannot write to it. arguments: more of the kernel's command line. huge: see Arena.

    MachineError: a file that cannot be used, or RAM that is too small for them.
    """

    name = "linux"
    architecture = "riscv64"
    elf_machine = EM_RISCV
    identity_mapped = False
    kept_registers = "riscv"
    vcpus = 1

    def __init__(
        self,
        ram_size: int | str,
        kernel: str | Path | None = None,
        *,
        initrd: str | Path | None = None,
        disk: str | Path | None = None,
        read_only: bool = False,
        arguments: str = "",
        huge: Huge | None = None,
    ) -> None:
        size = wanted_size(ram_size)
        self.kernel = Path(kernel) if kernel else _fetched_kernel()
        if initrd is None and not kernel:
            initrd = FETCHED / "initramfs.gz"
        self.arguments = f"{ARGUMENTS} {arguments}".strip()
        self.memory_map: Sequence[PhysicalRange] = (PhysicalRange(_RAM, size, 0),)
        image = KernelImage.load(self.kernel)
        first = read_part(Path(initrd), "initrd") if initrd else b""
        with contextlib.ExitStack() as undo:
            self._disk = DiskImage.open(Path(disk), read_only=read_only) if disk else None
            if self._disk:
                undo.callback(self._disk.close)
            parts = self._lay_out(size, image, first)
            arena = Arena(size, huge)
            undo.callback(arena.close)
            self._adopt(arena, self._create(arena, parts))
            undo.pop_all()
        self._information = KernelInformation(SearchedArena(arena), self.memory_map, RISCV_KERNEL)

    # ------------------------------------------------------------------ making one

    def _lay_out(self, size: int, image: KernelImage, initrd: bytes) -> Sequence[tuple[int, bytes]]:
        """Physical addresses of kernel, initrd and device tree, in this order."""
        tree = _RAM + size - _TREE_ROOM
        begin = tree - align_up(len(initrd), PAGE_SIZE)
        need = image.text_offset + image.size + align_up(len(initrd), PAGE_SIZE) + _TREE_ROOM
        if size < need or size % PAGE_SIZE:
            raise MachineError(
                f"cannot boot kernel {self.kernel}: RAM is {format_size(size)}, and kernel and"
                f" initrd alone take {format_size(need)}",
                errno=errno.ENOMEM,
                hint="`livedump host --ram` gives it more, in whole pages",
            )
        place = (begin, begin + len(initrd)) if initrd else None
        text = board_tree(
            *(size, self.arguments, place, os.urandom(_SEED_BYTES)), disk=self._disk is not None
        )
        kernel = (_RAM + image.text_offset, image.data)
        return (kernel, *([(begin, initrd)] if initrd else []), (tree, text))

    def _create(self, arena: Arena, parts: Sequence[tuple[int, bytes]]) -> EmulatorCore:
        """The board boots from `parts`, and does so again when the guest reboots."""
        kept = [(address, ffi.from_buffer(data), len(data)) for address, data in parts]
        given = ffi.new("ldfs_boot_part[]", kept)
        disk = self._disk
        about = {
            "ram_size": arena.size,
            "entry": parts[0][0],
            "tree": parts[-1][0],
            "parts": given,
            "part_count": len(parts),
            "disk": disk.descriptor if disk else -1,
            "disk_size": disk.size if disk else 0,
            "read_only": bool(disk and disk.read_only),
        }
        out, why = ffi.new("ldfs_board **"), ffi.new("char[]", WHY_SIZE)
        rc = lib.ldfs_board_create(
            *(unicorn_library().encode(), lib.ldfs_arena_live(arena._handle)),
            *(ffi.new("ldfs_board_plan *", about), out, why, WHY_SIZE),
        )
        cause = ffi.string(why).decode(errors="replace")
        check(rc, "make a RISC-V board", MachineError, cause)
        return EmulatorCore(
            *(lib.ldfs_board_machine(out[0]), out[0]),
            *(lib.ldfs_board_start, lib.ldfs_board_stop, lib.ldfs_board_destroy),
            kept,
        )

    def close(self) -> None:
        """As EmulatedMachine, and the disk."""
        super().close()
        if self._disk:
            self._disk.close()
            self._disk = None

    # ------------------------------------------------------------------- using it

    def wait_ready(self) -> None:
        """It is at once: its console shows how it boots."""

    def type(self, text: bytes) -> None:
        """See TakesTyping."""
        rc = lib.ldfs_board_type(self._owner, text, len(text))
        check(rc, "type at the console", MachineError, "the guest has not read what was typed")

    def ended(self) -> bool:
        """The guest has switched itself off."""
        return not self._closed and bool(self.board_status().off)

    def board_status(self) -> CData:
        """ldfs_board_status: boots, ticks, requests of the disk."""
        out = ffi.new("ldfs_board_status *")
        lib.ldfs_board_status_of(self._owner, out)
        return out

    # ------------------------------------------------------- what its dumps need

    def note_room(self, vcpus: int) -> int:
        """Bytes for the kernel's VMCOREINFO."""
        del vcpus
        return INFORMATION_ROOM

    def look_ahead(self) -> None:
        """See LooksAhead: where the kernel has put VMCOREINFO."""
        with contextlib.suppress(LivedumpError, OSError):
            self._information.look([one["satp"] for one in self.registers()])

    def snapshot_notes(self, read: ReadSnapshot) -> Sequence[Note]:
        """VMCOREINFO, once the kernel has written it."""
        tables = [one["satp"] for one in self.snapshot_registers()]
        text = self._information.find(read, tables)
        return () if text is None else (information_note(text),)

    def metadata(self) -> dict[str, object]:
        """What the dump says of the machine."""
        return {
            "name": self.name,
            "guest": str(self.kernel),
            "arguments": self.arguments,
            "vcpus": self.vcpus,
            "ram_size": self.arena.size,
        }


def _fetched_kernel() -> Path:
    kernel = FETCHED / "vmlinux"
    if not kernel.exists():
        raise MachineError(
            f"there is no kernel: {kernel} was not fetched",
            errno=errno.ENOENT,
            hint="`make -C guest/linux riscv64` of a source tree fetches Debian's;"
            " `--linux FILE` boots another one",
        )
    return kernel
