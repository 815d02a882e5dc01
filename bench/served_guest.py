# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU guest that is dumped in several ways, and what is seen of it from outside."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from accelerator import accelerator
from qemu.qmp.legacy import QEMUMonitorProtocol

from livedumpfs.client import Client

GUEST = Path(__file__).resolve().parents[1] / "guest" / "linux" / "build"
KERNEL = GUEST / "vmlinuz"
DEADLINE = 300.0
BOOT = 120.0
POLL = 0.01


class Pulse:
    """Records when the bytes of the guest's serial port arrive."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._longest = 0.0
        self.bytes = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        before = time.monotonic()
        while data := self._socket.recv(4096):
            now = time.monotonic()
            self._longest, before = max(self._longest, now - before), now
            self.bytes += len(data)

    def begin(self) -> None:
        """Forget the earlier gaps."""
        self._longest = 0.0

    def longest(self) -> float:
        """The longest gap since begin(), in seconds."""
        return self._longest


class Guest:
    """The running guest, its host, and a monitor connection of this program."""

    def __init__(
        self, device: str, client: Client, monitor: QEMUMonitorProtocol, pulse: Pulse
    ) -> None:
        self.device, self.client, self.monitor, self.pulse = device, client, monitor, pulse

    def stops(self) -> list[float]:
        """Seconds of each stop since the last call, by the clock in QEMU's events."""
        self.monitor.cmd("query-status")  # events before this answer have arrived then
        found, since = [], None
        for event in self.monitor.get_events(wait=False):
            stamp = event["timestamp"]
            at = stamp["seconds"] + stamp["microseconds"] / 1e6
            if event["event"] == "STOP":
                since = at
            elif event["event"] == "RESUME" and since is not None:
                found.append(at - since)
                since = None
        self.monitor.clear_events()
        return found


def until(what: Callable[[], bool], seconds: float, say: str) -> None:
    """Wait for a condition; on timeout, end the program with `say`."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            sys.exit(f"{say}: not within {seconds:g} s")
        time.sleep(POLL)


def _options(folder: Path, memory: int) -> list[str]:
    """2 vCPUs and `memory` bytes; it writes memory and reads a disk directly, and has a second
    serial port for its pulse."""
    drive = f"file={GUEST}/disk.img,format=raw,if=virtio,cache=none,aio=threads,readonly=on"
    return [
        "qemu-system-x86_64", "-accel", accelerator(KERNEL), "-M", "q35", "-m", f"{memory >> 20}M",
        "-smp", "2", "-display", "none", "-no-reboot", "-serial", f"file:{folder}/console",
        "-serial", f"unix:{folder}/pulse,server=on,wait=off",
        "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
        "-device", "vmcoreinfo", "-kernel", str(KERNEL), "-initrd", f"{GUEST}/initramfs.gz",
        "-append", "console=ttyS0 quiet init_on_alloc=0 churn=3 fill=96 pulse=/dev/ttyS1",
        "-drive", drive,
    ]  # fmt: skip


@contextlib.contextmanager
def _host(*words: str | Path, told_on: str) -> Iterator[str]:
    """Its device. `told_on`: the stream on which it tells that."""
    process = subprocess.Popen(
        [sys.executable, "-m", "livedumpfs.cli", *words], stdin=subprocess.DEVNULL, text=True,
        **{told_on: subprocess.PIPE},  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        told = getattr(process, told_on)
        lines = [told.readline() for _ in "12"]
        if not lines[1].startswith("device "):
            sys.exit("".join(lines))
        yield lines[1].split()[1]
    finally:
        process.terminate()
        process.wait(DEADLINE)


@contextlib.contextmanager
def _watched(folder: Path, device: str, way: str) -> Iterator[Guest]:
    """After the guest has worked for some seconds."""
    console = folder / "console"
    pulse = Pulse(folder / "pulse")
    monitor = QEMUMonitorProtocol(str(folder / "qmp"))
    monitor.connect()
    with Client(device) as client:
        until(lambda: "beat" in console.read_text(errors="replace"), BOOT, f"the start, {way}")
        until(lambda: pulse.bytes > 2000, BOOT, f"the guest's pulse, {way}")
        yield Guest(device, client, monitor, pulse)
    monitor.close()


@contextlib.contextmanager
def hosted(folder: Path, memory: int = 1 << 30) -> Iterator[Guest]:
    """The guest under `livedump qemu`, in its own process."""
    words: list[str | Path] = ["qemu", "--mount", folder / "mount", "--"]
    (folder / "mount").mkdir()
    with (
        _host(*words, *_options(folder, memory), told_on="stderr") as device,
        _watched(folder, device, "hosted") as guest,
    ):
        yield guest


@contextlib.contextmanager
def attached(folder: Path, memory: int = 1 << 30) -> Iterator[Guest]:
    """The guest in a QEMU that nothing was prepared in, and a host that attached to it."""
    (folder / "mount").mkdir()
    theirs = folder / "attach"
    monitor = ["-qmp", f"unix:{theirs},server=on,wait=off"]
    qemu = subprocess.Popen([*_options(folder, memory), *monitor], stdin=subprocess.DEVNULL)
    try:
        until(lambda: theirs.exists() and (folder / "pulse").exists(), BOOT, "QEMU's start")
        words = ["attach", "--mount", folder / "mount", theirs]
        with (
            _host(*words, told_on="stdout") as device,
            _watched(folder, device, "attached") as guest,
        ):
            yield guest
    finally:
        qemu.kill()
        qemu.wait(DEADLINE)
