# SPDX-License-Identifier: GPL-2.0-or-later
"""`qemu --check`: what would become of a QEMU command line, without starting its guest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from livedumpfs.cli.attach_command import expected_stop
from livedumpfs.cli.foresight import tell_check
from livedumpfs.dump import DumpSettings
from livedumpfs.dump.trial import expect_pool, has_room, try_userfaultfd
from livedumpfs.errors import HostError
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.machines.qemu.beforehand import Beforehand, look_beforehand
from livedumpfs.mount.mountpoint import check_mountpoint, mount_obstacle
from livedumpfs.settings import POOL_START
from livedumpfs.units import format_size

_UNDER: Final = "under livedump: the C core of livedumpfs in QEMU's process, by LD_PRELOAD"
_ATTACH: Final = (
    "not under livedump; QEMU can be started without it, with -qmp unix:PATH,server=on,wait=off, "
    "and `livedump attach PATH` takes dumps"
)
_NONE: Final = "none: neither under livedump nor by `livedump attach`"
_STOP: Final = 'a few ms at any size of RAM (docs/qemu.md, "Measured stops")'
_RIGHTS: Final = "userfaultfd (tried on memory of this process), FUSE"


def check_qemu(argv: Sequence[str], settings: DumpSettings, args: argparse.Namespace) -> int:
    """Print it. Returns the exit code. UsageError: the command line makes no sense."""
    found = look_beforehand(argv)
    backends = QemuMachine.backends
    found.expect(lambda: settings.for_machine(backends, lambda: backends[0]), attachable=True)
    # Both ways need it, and a mount.
    found.expect(try_userfaultfd, attachable=False)
    obstacle = mount_obstacle(allow_other=args.allow_other)
    if obstacle:
        found.refuse(HostError("this user cannot mount", hint=obstacle), attachable=False)
    if args.mount:
        found.expect(lambda: check_mountpoint(args.mount), attachable=True)
    pool = POOL_START if isinstance(settings.pool, str) else settings.pool
    found.expect(lambda: expect_pool(pool), attachable=True)
    return tell_check(_rows(found, pool, settings), found.refused, as_json=args.json)


def _rows(found: Beforehand, pool: int, settings: DumpSettings) -> list[tuple[str, str]]:
    ram, here = found.ram, format_size(pool)
    grows = " at first, it grows with need" * isinstance(settings.pool, str)
    stop = _STOP
    if found.refused:
        stop = expected_stop(ram.size) if ram and found.attachable else ""
    return [
        ("QEMU", f"{found.version or 'unknown'}, {found.accelerator}"),
        ("guest", _guest(found)),
        ("way", _way(found)),
        ("stop", stop),
        ("rights", "" if found.refused else _RIGHTS),
        ("memory here", f"{here} for slots{grows}, and 0.4 % of RAM in page tables"),
        ("left open", "; ".join([*found.left_open, "what QEMU says of disks and networks"])),
    ]


def _guest(found: Beforehand) -> str:
    ram, named = found.ram, found.command.named
    size = format_size(ram.size) if ram else found.size
    words = [f"{size} of RAM" if size else "RAM of unknown size"]
    if named:
        words.append(f"in your memory backend {named}")
    elif not found.refused:
        words.append("in a memory backend that is made for it")
    if ram and not has_room(ram.size):
        words.append("(more than what is free here)")
    return " ".join(words) + ", waits for `cont` (-S)" * found.command.stopped


def _way(found: Beforehand) -> str:
    if not found.refused:
        return _UNDER
    return _ATTACH if found.attachable else _NONE
