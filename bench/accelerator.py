# SPDX-License-Identifier: GPL-2.0-or-later
"""Chooses the QEMU accelerator for guests of tests and measurements: KVM where it really runs them.

LIVEDUMP_ACCELERATOR=kvm or =tcg overrides the check.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import time
from pathlib import Path

VARIABLE = "LIVEDUMP_ACCELERATOR"
FIRMWARE_S = 20.0
LINUX_S = 10.0
"""Seconds for a kernel's first line; KVM on hardware needs one or two."""
_ROM = 64 << 10
_ENTRY = 0xFFF0
"""Offset in the ROM of the first instruction of a CPU."""
_CODE = bytes((0xB0, 0x21, 0xE6, 0xF4, 0xF4))  # mov $0x21, %al; out %al, $0xf4; hlt
_STATUS = 0x21 << 1 | 1
"""QEMU's exit status when the guest has written _CODE's byte to isa-debug-exit."""
_KVM = ("qemu-system-x86_64", "-accel", "kvm", "-display", "none", "-nodefaults", "-no-reboot")


@functools.cache
def why_no_kvm() -> str:
    """Why KVM runs no guest here; empty: it has run one of three instructions."""
    if os.environ.get(VARIABLE) == "tcg":
        return f"{VARIABLE}=tcg"
    with tempfile.TemporaryDirectory() as folder:
        rom = Path(folder) / "rom"
        rom.write_bytes(bytes(_ENTRY) + _CODE.ljust(_ROM - _ENTRY, b"\0"))
        out = "isa-debug-exit,iobase=0xf4,iosize=1"
        command = [*_KVM, "-m", "16M", "-bios", rom, "-device", out]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=FIRMWARE_S, check=False
            )
        except subprocess.TimeoutExpired:
            return "a guest of three instructions does not end under KVM"
    if done.returncode == _STATUS:
        return ""
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"QEMU ends with status {done.returncode}"


@functools.cache
def why_no_linux(kernel: Path) -> str:
    """Why that kernel cannot run under KVM; empty: it has printed its first line there."""
    if why_no_kvm():
        return why_no_kvm()
    if os.environ.get(VARIABLE) == "kvm":
        return ""
    with tempfile.TemporaryDirectory() as folder:
        console = Path(folder) / "console"
        words = ["-m", "256M", "-kernel", kernel, "-append", "earlyprintk=ttyS0 edd=off"]
        process = subprocess.Popen(
            [*_KVM, *words, "-serial", f"file:{console}"], stderr=subprocess.DEVNULL
        )
        try:
            if _speaks(process, console):
                return ""
        finally:
            process.kill()
            process.wait()
    return f"KVM runs firmware here, but {kernel.name} has not begun after {LINUX_S:g} s"


def _speaks(process: subprocess.Popen[bytes], console: Path) -> bool:
    """Whether the kernel prints its first line in time."""
    end = time.monotonic() + LINUX_S
    while process.poll() is None and time.monotonic() < end:
        if console.exists() and b"Linux version" in console.read_bytes():
            return True
        time.sleep(0.1)
    return False


def accelerator(kernel: Path) -> str:
    """Argument of QEMU's -accel for guests with that kernel: "kvm" or "tcg"."""
    return "tcg" if why_no_linux(kernel) else "kvm"
