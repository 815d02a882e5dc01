# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux kernel for riscv64 as a flat Image (Documentation/arch/riscv/boot-image-header.rst)."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from livedumpfs.errors import MachineError

_HEADER = struct.Struct("<8xQQQ16xQ4s4x")
"""text_offset, image_size, flags, magic, magic2."""
_MAGIC2: Final = b"RSC\x05"
_BIG_ENDIAN: Final = 1
_HINT: Final = "Debian's /boot/vmlinux-...-riscv64 is one"

# What other files say they are: (offset, bytes, half a sentence).
_OTHERS: Final = (
    (0x202, b"HdrS", "it is a kernel for x86, not for riscv64"),
    (56, b"ARM\x64", "it is a kernel for arm64, not for riscv64"),
    (4, b"zimg", "it is a compressed EFI program, not a flat Image"),
    (0, b"\x1f\x8b", "it is compressed; gunzip it first"),
    (0, b"\x28\xb5\x2f\xfd", "it is compressed; unzstd it first"),
    (0, b"\xfd7zXZ\0", "it is compressed; unxz it first"),
    (0, b"\x7fELF", "it is an ELF file, not a flat Image"),
)


@dataclass(frozen=True)
class KernelImage:
    """A kernel that was read, and is for this machine."""

    data: bytes
    text_offset: int
    """Where it wants to lie, in bytes from the start of RAM."""
    size: int
    """Bytes that it takes when it runs, with what is zero at first."""

    @classmethod
    def load(cls, path: Path) -> KernelImage:
        """MachineError: cannot be read (its errno), or no kernel for this machine (ENOEXEC)."""
        data = read_part(path, "kernel")
        if len(data) >= _HEADER.size:
            offset, size, flags, _, magic2 = _HEADER.unpack_from(data)
            if magic2 == _MAGIC2 and not flags & _BIG_ENDIAN and size >= len(data):
                return cls(data, offset, size)
        for at, mark, cause in _OTHERS:
            if data[at : at + len(mark)] == mark:
                raise _refuse(path, cause)
        raise _refuse(path, "it is no Linux kernel for riscv64")


def read_part(path: Path, what: str) -> bytes:
    """All bytes of a file. MachineError: cannot be read (its errno), or it is empty (EINVAL)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        code = error.errno or errno.EIO
        raise MachineError(f"cannot read {what} {path}: {error.strerror}", errno=code) from error
    if not data:
        raise MachineError(f"cannot boot {what} {path}: it is empty", errno=errno.EINVAL)
    return data


def _refuse(path: Path, cause: str) -> MachineError:
    return MachineError(f"cannot boot kernel {path}: {cause}", errno=errno.ENOEXEC, hint=_HINT)
