# SPDX-License-Identifier: GPL-2.0-or-later
"""`host` without `--linux`: the built-in ledger, or a program of the user's own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.arguments import share
from livedumpfs.errors import UsageError

if TYPE_CHECKING:
    from livedumpfs.machines import RiscvMachine, UnicornMachine

_DEFAULT_DIRTY: Final = 0.25
_IDLE_RATE: Final = 10
"""Transfers of the built-in guest under --idle, per second and vCPU."""


def add_guest_options(parser: argparse.ArgumentParser) -> None:
    """Which guest, and what it does."""
    parser.add_argument(
        "--dirty",
        type=share,
        default=_DEFAULT_DIRTY,
        metavar="SHARE",
        help="share of its memory that the built-in guest writes; default: 25%%",
    )
    parser.add_argument(
        "--idle", action="store_true", help="the built-in guest writes only now and then"
    )
    parser.add_argument(
        "--arch",
        choices=("x86_64", "riscv64"),
        help="the processor of the built-in guest; default: x86_64",
    )
    parser.add_argument(
        "--guest", metavar="FILE", help="x86-64 or riscv64 ELF64 program to run instead"
    )


def guest_machine(args: argparse.Namespace) -> UnicornMachine | RiscvMachine:
    """The machine for it. UsageError: options that do not go together; MachineError."""
    from livedumpfs.machines import RiscvMachine, UnicornMachine
    from livedumpfs.machines.guest_image import is_for_riscv64

    if args.guest and args.arch:
        raise UsageError("--arch is for the built-in guest; the file of --guest says its own")
    rate = _IDLE_RATE if args.idle else 0
    if args.arch != "riscv64" and not (args.guest and is_for_riscv64(Path(args.guest))):
        return UnicornMachine(
            *(args.ram, args.vcpus, args.guest), dirty_share=args.dirty, rate=rate, huge=args.huge
        )
    if args.vcpus > 1:
        raise UsageError(
            "riscv64 has one vCPU here: locked instructions of two would not be atomic"
        )
    return RiscvMachine(args.ram, args.guest, dirty_share=args.dirty, rate=rate, huge=args.huge)
