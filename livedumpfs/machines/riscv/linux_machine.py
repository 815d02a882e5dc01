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
from livedumpfs.errors import LivedumpError, MachineError
from livedumpfs.formats.note import Note
from livedumpfs.huge import Huge
from livedumpfs.machines.kernels.information import KernelInformation
from livedumpfs.machines.kernels.information_note import INFORMATION_ROOM, information_note
from livedumpfs.machines.kernels.riscv_kernel import RISCV_KERNEL
from livedumpfs.machines.kernels.searched_arena import SearchedArena
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.machines.riscv.board_machine import RAM_START, BoardMachine
from livedumpfs.machines.riscv.board_tree import board_tree
from livedumpfs.machines.riscv.disk_image import DiskImage
from livedumpfs.machines.riscv.kernel_image import KernelImage, read_part
from livedumpfs.units import PAGE_SIZE, align_up, format_size

FETCHED: Final = Path(__file__).resolve().parents[3] / "guest" / "linux" / "build" / "riscv64"
"""Where `make -C guest/linux riscv64` of a source tree puts Debian's kernel and a system for it."""
ARGUMENTS: Final = "console=ttyS0 no4lvl"
"""Of every kernel: the serial line, and page tables as the emulated hart has them."""

_TREE_ROOM: Final = 2 << 20
"""At the end of RAM; a kernel maps the tree's 2 MiB whole."""
_SEED_BYTES: Final = 64


class LinuxMachine(BoardMachine):
    """A computer with one RISC-V hart, a serial line, and perhaps a disk.

    ram_size: bytes or "512MiB". kernel: a flat Image; None: Debian's, if it was fetched. initrd:
    None: the fetched kernel's own, or none. disk: a file or block device. read_only: the guest
    cannot write to it. arguments: more of the kernel's command line. huge: see Arena.

    MachineError: a file that cannot be used, or RAM that is too small for them.
    """

    name = "linux"
    identity_mapped = False

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
        self.memory_map: Sequence[PhysicalRange] = (PhysicalRange(RAM_START, size, 0),)
        image = KernelImage.load(self.kernel)
        first = read_part(Path(initrd), "initrd") if initrd else b""
        with contextlib.ExitStack() as undo:
            self._disk = DiskImage.open(Path(disk), read_only=read_only) if disk else None
            if self._disk:
                undo.callback(self._disk.close)
            parts = self._lay_out(size, image, first)
            arena = Arena(size, huge)
            undo.callback(arena.close)
            entry, tree = parts[0][0], parts[-1][0]
            self._adopt(arena, self._make_board(arena, parts, entry, tree, self._disk))
            undo.pop_all()
        self._information = KernelInformation(SearchedArena(arena), self.memory_map, RISCV_KERNEL)

    # ------------------------------------------------------------------ making one

    def _lay_out(self, size: int, image: KernelImage, initrd: bytes) -> Sequence[tuple[int, bytes]]:
        """Physical addresses of kernel, initrd and device tree, in this order."""
        tree = RAM_START + size - _TREE_ROOM
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
        kernel = (RAM_START + image.text_offset, image.data)
        return (kernel, *([(begin, initrd)] if initrd else []), (tree, text))

    def close(self) -> None:
        """As EmulatedMachine, and the disk."""
        super().close()
        if self._disk:
            self._disk.close()
            self._disk = None

    # ------------------------------------------------------------------- using it

    def wait_ready(self) -> None:
        """It is at once: its console shows how it boots."""

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
