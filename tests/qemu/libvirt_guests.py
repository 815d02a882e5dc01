# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain of a real libvirtd, under libvirt's own confinement: another user, seccomp, a mount
namespace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aftermath import wait_for

from livedumpfs.machines.attach.libvirt_monitor import LibvirtMonitor
from tests.fixtures.program_files import program_file
from tests.qemu.running_guests import SIZE, SomeGuest

WANTED = bool(os.environ.get("LIVEDUMP_LIBVIRT"))
DOMAIN = "livedump-test"
DEADLINE_S = 300.0
USERFAULTFD = Path("/proc/sys/vm/unprivileged_userfaultfd")
XML = """<domain type="qemu">
  <name>{name}</name>
  <memory unit="bytes">{size}</memory>
  <vcpu>1</vcpu>
  <os><type arch="x86_64" machine="pc">hvm</type><loader type="rom">{firmware}</loader></os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type="usb" model="none"/>
    <memballoon model="none"/>
  </devices>
</domain>
"""


@dataclass
class Libvirtd:
    """Its script starts it again whenever it ends."""

    script: subprocess.Popen[str]
    folder: Path

    def virsh(self, *words: str) -> str:
        done = subprocess.run(
            ["virsh", *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, (done, self.log())
        return done.stdout.strip()

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text()[-4000:] if file.exists() else "no log"

    def kill(self) -> None:
        """QEMU runs on, and the next libvirtd finds it."""
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)

    def answers(self) -> bool:
        done = subprocess.run(
            ["virsh", "version"], capture_output=True, timeout=DEADLINE_S, check=False
        )
        return done.returncode == 0


@dataclass
class LibvirtGuest(SomeGuest):
    """What the test asks of QEMU goes through libvirt, too."""

    libvirtd: Libvirtd


@contextlib.contextmanager
def libvirtd_alone(folder: Path) -> Iterator[Libvirtd]:
    """One for this test, as the default one of virsh and of livedumpfs."""
    command = ["unshare", "--mount", "--propagation", "private", "sh"]
    script = subprocess.Popen(
        [*command, program_file(__file__, "libvirtd_alone.sh"), str(folder)],
        stdin=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    found = Libvirtd(script, folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            socket = folder / "sock" / "libvirt-sock"
            patch.setenv("LIBVIRT_DEFAULT_URI", f"qemu+unix:///system?socket={socket}")
            wait_for(found.answers, found.log)
            yield found
    finally:
        script.terminate()
        script.wait(DEADLINE_S)


@contextlib.contextmanager
def domain(libvirtd: Libvirtd, firmware: Path) -> Iterator[LibvirtGuest]:
    """Firmware in a domain that `virsh create` starts."""
    copy = libvirtd.folder / "firmware"  # which QEMU's user can read
    shutil.copy(firmware, copy)
    copy.chmod(0o644)
    file = libvirtd.folder / "domain.xml"
    emulator = shutil.which("qemu-system-x86_64")
    file.write_text(XML.format(name=DOMAIN, size=SIZE, firmware=copy, emulator=emulator))
    socket: Any = partial(LibvirtMonitor, DOMAIN)
    pid = 0
    try:
        libvirtd.virsh("create", str(file))
        with LibvirtMonitor(DOMAIN, lambda event: None) as other:
            pid = other.pid
            assert pid
            os.setpriority(os.PRIO_PROCESS, pid, 19)
            yield LibvirtGuest(pid, socket, other, libvirtd)
    finally:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        else:  # it may have begun all the same
            command = ["virsh", "destroy", DOMAIN]
            subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)


@contextlib.contextmanager
def userfaultfd_for_all(allowed: bool) -> Iterator[None]:
    """Whether a QEMU without rights may use it."""
    before = USERFAULTFD.read_text()
    USERFAULTFD.write_text("1" if allowed else "0")
    try:
        yield
    finally:
        USERFAULTFD.write_text(before)
