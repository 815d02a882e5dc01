# SPDX-License-Identifier: GPL-2.0-or-later
"""`attach`: serves the mount of a QEMU that runs already, by its monitor alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from livedumpfs.cli import text
from livedumpfs.cli.arguments import Commands, add_command
from livedumpfs.cli.defaults import add_defaults, default_settings
from livedumpfs.cli.foresight import add_check, expect_check, tell_check
from livedumpfs.cli.host_command import add_mount_options, mount_directory, serve
from livedumpfs.cli.output import say
from livedumpfs.cli.watched_host import watched
from livedumpfs.units import format_size

if TYPE_CHECKING:
    from livedumpfs.machines.attach import AttachedMachine
    from livedumpfs.machines.attach.guest_monitor import GuestMonitor, OnEvent

SOCKET_HELP = "QEMU's monitor (QMP), a Unix socket; no other program may be connected to it"


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "attach",
        "Serve the mount of a QEMU that runs already. Ctrl-C or SIGTERM ends that, and QEMU runs "
        "on.",
        run_attach,
    )
    guest = parser.add_mutually_exclusive_group(required=True)
    guest.add_argument("socket", metavar="SOCKET", nargs="?", help=SOCKET_HELP)
    add_libvirt(guest)
    add_check(parser)
    add_mount_options(parser)
    add_defaults(parser)


def add_libvirt(guest: argparse._MutuallyExclusiveGroup) -> None:
    """Add `--libvirt`, the other way to say which guest is meant."""
    guest.add_argument(
        "--libvirt",
        metavar="DOMAIN",
        help="the QEMU of this domain (name, UUID or number), through libvirt; LIBVIRT_DEFAULT_URI "
        "names the libvirtd",
    )


def _guest_of(args: argparse.Namespace) -> str | Callable[[OnEvent], GuestMonitor]:
    if args.libvirt is None:
        socket: str = args.socket
        return socket
    from livedumpfs.machines.attach.libvirt_monitor import LibvirtMonitor

    return partial(LibvirtMonitor, args.libvirt)


def run_attach(args: argparse.Namespace) -> int:
    """Serve it until it is told to stop, or QEMU ends."""
    from livedumpfs.machines.attach import AttachedMachine

    settings = default_settings(args)
    expect_check(args)
    with (
        watched(args) as by,
        AttachedMachine(_guest_of(args), checked=not args.check) as machine,
    ):
        if args.check:
            return tell_check(_described(machine), machine.obstacles(), as_json=args.json)
        with mount_directory(args.mount) as place:

            def announce(device: str) -> None:
                cpus = text.count(machine.vcpus, "vCPU")
                what = f"{machine.name}, {format_size(machine.arena.size)}, {cpus}"
                say(f"{what}: attached\ndevice {device}{by.places}")

            return serve(machine, place, args, settings, by, announce)


def expected_stop(ram: int) -> str:
    """For that many bytes of RAM."""
    most = max(10, round(ram / (1 << 30) * 20))
    return f'about {most} ms (docs/qemu.md, "The stop of attach": measured up to 2 GiB, TCG)'


def _described(machine: AttachedMachine) -> list[tuple[str, str]]:
    """What a dump would be."""
    ram, here = format_size(machine.arena.size), format_size(machine.expected_memory())
    state, hangs = machine.monitor.status(), machine.is_hanging()
    paused = "; before QEMU 8.2 a paused guest runs for some milliseconds" * (state == "paused")
    return [
        ("QEMU", f"{machine.version}, {machine.accelerator}"),
        ("guest", f"{state}, {text.count(machine.vcpus, 'vCPU')}, {ram} of RAM{paused}"),
        ("monitor", machine.monitor.place + machine.monitor.taints),
        ("way", "QEMU's own background snapshot; nothing is put into QEMU"),
        ("stop", expected_stop(machine.arena.size)),
        ("memory here", f"about {here}, at most {ram}"),
        ("left open", "whether QEMU may write-protect this memory: it says so at START"),
        ("hanging", "the guest hangs after a snapshot that failed: attach frees it" * hangs),
    ]
