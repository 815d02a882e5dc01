# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian guest of guest/linux/ in a QEMU of the test's own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerator import accelerator
from firmware import build

from livedumpfs.dump import LiveDump
from livedumpfs.machines.attach.snapshot_job import SnapshotJob
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.machines.qemu.guest_memory import find_mapping
from livedumpfs.proc import proc_text
from livedumpfs.units import PAGE_SIZE
from tests.fixtures import forks
from tests.fixtures.locks import locked
from tests.qemu.lengths import LONG, MEMORY
from tests.qemu.small_guests import FirmwareGuest, children, firmware_command, qemu_of

TOP = Path(__file__).resolve().parents[2]
GUEST = TOP / "guest" / "linux"
PROGRAMS = ("qemu-system-x86_64", "makedumpfile", "readelf", "busybox", "cpio", "make", "gcc")
FETCH_S = 600.0
BOOT_S = 600.0
STEP_S = 300.0
CHURN = 3 if LONG else 1
"""Processes of the guest that write memory all the time, and take a processor of ours each."""
PROTECTED = 57
"""Bit of /proc/PID/pagemap: write-protected by userfaultfd."""


class Protection:
    """Of the guest's RAM, as QEMU sees it; to be made before its first dump."""

    def __init__(self, pid: int, size: int = MEMORY << 20) -> None:
        self.pid, self.pages = pid, size // PAGE_SIZE
        found = find_mapping(proc_text(f"/proc/{pid}/maps"), size)
        self._first = found.address // PAGE_SIZE

    def count(self) -> int:
        """Pages to which a store has to wait for us."""
        with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as pagemap:
            entries = os.pread(pagemap.fileno(), self.pages * 8, self._first * 8)
        return int((np.frombuffer(entries, "<u8") >> PROTECTED & 1).sum())


@dataclass
class Guest:
    """A machine, and what it printed."""

    machine: QemuMachine | None
    console: Path
    first: Path | None = None
    protected: Protection | None = None

    def lines(self) -> list[str]:
        """Whole lines of its workload."""
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        return [line for line in whole.splitlines() if line.startswith("guest:")]

    def word(self, pattern: str) -> str:
        """What the newest such line has; empty: none yet."""
        found = [m for line in self.lines() if (m := re.search(pattern, line))]
        return found[-1][1] if found else ""

    def number(self, pattern: str) -> int:
        """The newest number that the guest printed in such a line; -1: none yet."""
        return int(self.word(pattern) or -1)

    def wait_for(self, what: Callable[[], bool], seconds: float = STEP_S) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.lines()[-8:]
            time.sleep(0.1)

    def boot(self) -> None:
        """Wait until all of its workload has begun."""
        self.wait_for(lambda: self.reads() > 0, BOOT_S)
        self.wait_for(lambda: self.beats() > 0 and bool(self.tasks()))
        self.wait_for(lambda: bool(self.word("release (.*)")), BOOT_S)

    def beats(self) -> int:
        return self.number(r"beat (\d+)")

    def reads(self) -> int:
        """Of the disk, directly, without an error."""
        assert self.number(r"direct reads \d+ errors (\d+)") <= 0
        return self.number(r"direct reads (\d+)")

    def tasks(self) -> dict[int, str]:
        """By process id, as the guest printed them last."""
        words = self.word(r"tasks \d+ (.*)").split()
        return {int(pid): name for pid, _, name in (word.partition(":") for word in words)}

    def goes_on(self) -> None:
        """Its heart beats, its disk is read without an error, its memory is as it was written."""
        beat, reads = self.beats(), self.reads()
        self.wait_for(lambda: self.beats() > beat + 1)
        self.wait_for(lambda: self.reads() > reads)
        assert not [line for line in self.lines() if "WRONG" in line]


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host that is killed leaves its directory behind. A short name: a socket is made there."""
    with tempfile.TemporaryDirectory(prefix="lq-") as folder:
        assert tempfile.gettempdir()  # ours stays
        monkeypatch.setenv("TMPDIR", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    """A host is not waited for here: QEMU may take its time to end on a machine that is busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QemuMachine, "end_s", BOOT_S)
        yield


def guest_command(
    console: Path, memory: str = f"{MEMORY}M", *, churn: int = CHURN, fill: int = 96
) -> list[str]:
    """2 vCPUs; `churn` processes write 64 MiB each, one takes `fill` MiB and gives them back, one
    reads a disk directly."""
    build = GUEST / "build"
    drive = f"file={build}/disk.img,format=raw,if=virtio,cache=none,aio=threads,readonly=on"
    return [
        "qemu-system-x86_64", "-accel", accelerator(build / "vmlinuz"),
        "-M", "q35", "-m", memory, "-smp", "2",
        "-display", "none", "-no-reboot", "-serial", f"file:{console}",
        "-kernel", f"{build}/vmlinuz", "-initrd", f"{build}/initramfs.gz",
        "-append", f"console=ttyS0 quiet init_on_alloc=0 churn={churn} fill={fill}",
        "-device", "virtio-balloon-pci", "-drive", drive,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def guest_files() -> None:
    """Kernel, initramfs and disk: fetched and built once."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    assert not missing, f"{', '.join(missing)}: as root, `scripts/setup packages` installs it"
    assert os.geteuid() == 0, "userfaultfd, and a small file system to fill up, need root"
    (TOP / "build").mkdir(exist_ok=True)
    with locked(TOP / "build" / "guest.lock"):  # other processes that run tests want it too
        done = subprocess.run(
            ["make", "-s", "-C", str(GUEST)],
            capture_output=True, text=True, timeout=FETCH_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n(apt-get must be able to download)"


@pytest.fixture
def guest_parts(guest_files: None) -> tuple[Callable[[Path], list[str]], type[Guest]]:
    """For tests that start QEMU themselves."""
    del guest_files
    return guest_command, Guest


@pytest.fixture
def running_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that was paused for a reference runs while its dump is taken: QEMU before 8.2 lets it
    go at the instant."""

    def leave_it(self: SnapshotJob) -> threading.Thread:
        del self
        thread = threading.Thread(target=lambda: None)
        thread.start()
        return thread

    monkeypatch.setattr(SnapshotJob, "_pause_again", leave_it)


@pytest.fixture
def protection() -> type[Protection]:
    """Protection(pid of QEMU)."""
    return Protection


@pytest.fixture(scope="module")
def guest(guest_files: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """Its first dump has an INIT from before its kernel came up: it is checked by a test."""
    del guest_files
    folder = tmp_path_factory.mktemp("guest")
    with QemuMachine(guest_command(folder / "console")) as machine:
        found = Guest(machine, folder / "console", folder / "first")
        found.protected = Protection(machine._process.pid)
        live = LiveDump(machine)
        live.init(found.first)
        try:
            machine.start()
            found.boot()
            live.start()
            live.sweep()
            assert live.finish(BOOT_S) == "consistent"
        finally:
            live.release()
        yield found


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For QEMU's -bios: guest/firmware.S, which rests after each round, so that the processors are
    the tests'."""
    return build(tmp_path_factory.mktemp("firmware"), rests=True)


@pytest.fixture(scope="session")
def busy_firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, which stores all the time: for tests of its stores beside a dump, and for KVM where
    no processor helps it, under which nothing ends the rest."""
    return build(tmp_path_factory.mktemp("firmware"))


@contextlib.contextmanager
def _outliving(host: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Whatever happens, host and QEMU are gone afterwards."""
    orphans: list[int] = []
    try:
        yield orphans
    finally:
        with contextlib.suppress(OSError):
            orphans += children(host.pid)
        host.kill()
        host.wait()
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for stream in (host.stdin, host.stdout, host.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def outliving() -> Callable[[subprocess.Popen[str]], AbstractContextManager[list[int]]]:
    """outliving(host): the list of processes to end besides the host and its children."""
    return _outliving


@dataclass(frozen=True)
class SmallGuests:
    """A guest of 256 MiB with 2 vCPUs at most: `command(console)` starts it, and `of(pid of QEMU,
    console)` is it then."""

    command: Callable[[Path], list[str]]
    of: Callable[[int, Path], Any]


@pytest.fixture
def small_guests(request: pytest.FixtureRequest) -> Iterator[SmallGuests]:
    """Firmware, which is up within a second; by `make test-qemu` Debian."""
    if LONG:
        request.getfixturevalue("guest_files")
        yield SmallGuests(
            lambda console: guest_command(console, "256M", churn=1, fill=16),
            lambda _, console: Guest(None, console),
        )
        return
    firmware = request.getfixturevalue("firmware")
    with contextlib.ExitStack() as made:

        def of(pid: int, _: Path) -> FirmwareGuest:
            return made.enter_context(contextlib.closing(FirmwareGuest(pid)))

        yield SmallGuests(lambda _: firmware_command(firmware), of)


@pytest.fixture
def hosted(small_guests: SmallGuests, tmp_path: Path) -> Iterator[Any]:
    """`livedump qemu` in a process of its own, and its guest: (host, device, guest)."""
    mount, console = tmp_path / "mount", tmp_path / "console"
    mount.mkdir()
    words = ["-m", "livedumpfs.cli", "qemu", "--mount", str(mount), "--"]
    words += small_guests.command(console)
    host = forks.start(
        [sys.executable, *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        with _outliving(host):
            assert host.stderr and "running" in host.stderr.readline()
            device = host.stderr.readline().split()[1]
            guest = small_guests.of(qemu_of(host.pid), console)
            guest.boot()
            yield host, device, guest
    finally:
        unmount = ["fusermount", "-uz", str(mount)]
        subprocess.run(unmount, check=False, capture_output=True, timeout=STEP_S)
