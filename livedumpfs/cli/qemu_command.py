# SPDX-License-Identifier: GPL-2.0-or-later
"""`qemu`: runs QEMU with the user's own command line, and serves the mount of its machine."""

from __future__ import annotations

import argparse

from livedumpfs.cli.arguments import Commands, add_command
from livedumpfs.cli.defaults import add_defaults, default_settings
from livedumpfs.cli.foresight import add_check, expect_check
from livedumpfs.cli.host_command import add_mount_options, mount_directory, serve
from livedumpfs.cli.outcome import Exit
from livedumpfs.cli.output import tell
from livedumpfs.cli.text import count
from livedumpfs.cli.watched_host import watched
from livedumpfs.errors import UsageError
from livedumpfs.units import format_size


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "qemu",
        "Run a QEMU command line, and serve the mount of its machine until QEMU ends.",
        run_qemu,
    )
    add_check(parser)
    add_mount_options(parser)
    add_defaults(parser)
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- QEMU [OPTION ...]",
        help="qemu-system-x86_64 and its options",
    )


def run_qemu(args: argparse.Namespace) -> int:
    """Start QEMU with the shim, serve it, end it with the host, and return its exit status."""
    from livedumpfs.machines.qemu import EndedAtOnce, QemuMachine

    argv = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not argv:
        raise UsageError("no QEMU command line", hint="livedump qemu -- qemu-system-x86_64 ...")
    settings = default_settings(args)
    expect_check(args)
    if args.check:
        from livedumpfs.cli.qemu_check import check_qemu

        return check_qemu(argv, settings, args)
    try:
        with (
            watched(args) as by,
            mount_directory(args.mount) as place,
            QemuMachine(argv) as machine,
        ):

            def announce(device: str) -> None:
                # Not on standard output: that may be the guest's console.
                cpus = count(machine.vcpus, "vCPU")
                what = f"{machine.name}, {format_size(machine.arena.size)}, {cpus}"
                tell(f"{what}: running\ndevice {device}{by.places}")

            serve(machine, place, args, settings, by, announce)
            return machine.exit_status
    except EndedAtOnce as error:
        if error.status:
            raise
        return Exit.DONE  # QEMU did what its options asked for, such as help
