# SPDX-License-Identifier: GPL-2.0-or-later
"""`host --linux`: the options of a Linux in the host's own process."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from livedumpfs.errors import UsageError

if TYPE_CHECKING:
    from livedumpfs.machines import LinuxMachine

_DEFAULT_KERNEL: Final = ""
_OF_LINUX: Final = ("initrd", "disk", "append", "read_only")


def add_linux_options(parser: argparse.ArgumentParser) -> None:
    """Which Linux, and on what."""
    parser.add_argument(
        "--linux",
        nargs="?",
        const=_DEFAULT_KERNEL,
        metavar="KERNEL",
        help="boot Linux for riscv64 on one vCPU, a flat Image; default: Debian's, fetched by "
        "`make -C guest/linux riscv64`",
    )
    parser.add_argument(
        "--initrd", metavar="FILE", help="its initramfs; default: the fetched kernel's own"
    )
    parser.add_argument("--disk", metavar="FILE", help="its disk /dev/vda, a file or block device")
    parser.add_argument("--read-only", action="store_true", help="it cannot write to its disk")
    parser.add_argument(
        "--append", metavar="TEXT", default="", help="more of the kernel's command line"
    )


def linux_machine(args: argparse.Namespace) -> LinuxMachine | None:
    """The machine that --linux asks for; None: it was not given. UsageError: options of another
    machine; MachineError."""
    from livedumpfs.machines import LinuxMachine

    if args.linux is None:
        for name in _OF_LINUX:
            if getattr(args, name):
                raise UsageError(f"--{name.replace('_', '-')} is for --linux")
        return None
    if args.guest:
        raise UsageError("--guest and --linux are two machines; a host runs one")
    if args.arch:
        raise UsageError("--arch is for the built-in guest, not for --linux")
    if args.idle:
        raise UsageError("--idle is for the built-in guest, not for --linux")
    if args.vcpus > 1:
        raise UsageError("Linux has one vCPU here: locked instructions of two would not be atomic")
    if args.read_only and not args.disk:
        raise UsageError("--read-only is for --disk")
    return LinuxMachine(
        args.ram,
        args.linux or None,
        initrd=args.initrd,
        disk=args.disk,
        read_only=args.read_only,
        arguments=args.append,
        huge=args.huge,
    )
