# SPDX-License-Identifier: GPL-2.0-or-later
"""guest/firmware.S: a guest that does nothing but store, for QEMU's -bios in tests and
measurements."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "guest" / "firmware.S"
ROUNDS = 0x7000
"""Guest-physical address of the counter of finished rounds. In one round the guest stores to all of
its pages."""


def build(folder: Path) -> Path:
    """Build it in `folder`. Returns the file. CalledProcessError: binutils failed."""
    made, linked = folder / "firmware.o", folder / "firmware"
    link = ["ld", "-m", "elf_i386", "-Ttext", "0xffff0000", "-e", "0", "--oformat", "binary"]
    for command in (["as", "--32", "-o", made, SOURCE], [*link, "-o", linked, made]):
        subprocess.run(command, check=True, timeout=60)
    return linked
