# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole guests in their firmware, for QEMU's -bios in tests and measurements: guest/firmware.S,
which does nothing but store, and guest/windows_sign.S."""

from __future__ import annotations

import subprocess
from pathlib import Path

_GUESTS = Path(__file__).resolve().parents[1] / "guest"
SOURCE = _GUESTS / "firmware.S"
WINDOWS_SIGN = _GUESTS / "windows_sign.S"
ROUNDS = 0x7000
"""Guest-physical address of the counter of finished rounds. In one round the guest stores to all of
its pages."""


def build(folder: Path, source: Path = SOURCE, *, rests: bool = False) -> Path:
    """Build one in `folder`. `rests`: firmware.S halts for up to 55 ms after each round. Returns
    the file. CalledProcessError: binutils failed."""
    symbols = ["--defsym", "RESTS=1"] if rests else []
    made, linked = folder / f"{source.stem}.o", folder / source.stem
    link = ["ld", "-m", "elf_i386", "-Ttext", "0xffff0000", "-e", "0", "--oformat", "binary"]
    for command in (["as", "--32", *symbols, "-o", made, source], [*link, "-o", linked, made]):
        subprocess.run(command, check=True, timeout=60)
    return linked
