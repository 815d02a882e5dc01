# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of a QEMU that runs already, in processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from livedumpfs.dump import LiveDump
from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.proc import proc_text
from tests.fixtures import forks
from tests.fixtures.program_files import program_command
from tests.qemu.running_guests import SomeGuest


@contextlib.contextmanager
def host_in_the_middle(
    guest: SomeGuest, silence: float
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A host that has received the first pages; and the process id of its lifeline."""
    host = forks.start(
        program_command(__file__, "attached_host.py", named(guest), str(silence)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdin and host.stdout
    try:
        word, lifeline = host.stdout.readline().split()
        assert word == "receiving" and guest.migration() == "active"
        yield host, int(lifeline)
    finally:
        host.kill()
        host.wait()
        host.stdin.close()
        host.stdout.close()


def named(guest: SomeGuest) -> str:
    """As attached_host.py has it."""
    return guest.socket if isinstance(guest.socket, str) else f"libvirt:{guest.socket.args[0]}"


def gone(pid: int) -> bool:
    """Also when it is a zombie: its parent was killed."""
    try:
        return proc_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def dump_once(machine: AttachedMachine) -> None:
    """A dump that stays in memory."""
    live = LiveDump(machine)
    live.init(None)
    live.start()
    live.release()
