# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of one running QEMU guest: ours, and QEMU's own ways, in turn.

The guest is that of tests/qemu (Debian's kernel, 1 GiB, 2 vCPUs, TCG; processes that write memory,
and one that reads a disk). What is measured of each way:

stop    from QEMU's event STOP to its RESUME, by QEMU's own clock. `stop and cont` is QMP's pair
        alone, which each of the others has in it.
gap     the longest time without a byte of those that the guest writes to a serial port every
        millisecond, as this program sees them come; `nothing` is the longest in 2 s without a dump.
total   until the file is there, its last byte handed to the kernel (ours: synced).
size    of the file, holes apart.

arming  what the swap takes, for guests of several sizes whose memory is all there.
answer  from START's return until drgn has read the kernel's release from snapshot/vmcore.

Medians, with the largest. Trust the ratios: the times are this computer's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from qemu.qmp.legacy import QEMUMonitorProtocol
from rich.console import Console
from rich.table import Table

from livedumpfs.abi import Compression, Format, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import LiveDump
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.units import format_size, parse_size

GUEST = Path(__file__).resolve().parents[1] / "guest" / "linux" / "build"
CRASH, SYMBOLS = GUEST / "crash", GUEST / "vmlinux"
"""`make -C guest/linux crash symbols`; without them nobody is asked."""
DEADLINE = 300.0
BOOT = 120.0
POLL = 0.01
QUIET = 2.0
"""Seconds of each look at the guest without a dump."""
RELEASE = (
    "import sys, drgn\n"
    "program = drgn.Program()\n"
    "program.set_core_dump(sys.argv[1])\n"
    "print(program['UTS_RELEASE'].string_().decode())\n"
)
SYMBOLIC = (
    "import sys, drgn\n"
    "from drgn.helpers.linux import for_each_task\n"
    "program = drgn.Program()\n"
    "program.set_core_dump(sys.argv[1])\n"
    "program.main_module('kernel', create=True).try_file(sys.argv[2])\n"
    "print(sum(1 for _ in for_each_task(program)))\n"
)
Way = Callable[["Guest", Path], None]


class Pulse:
    """The bytes of the guest's serial port: when they come."""

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
        """Forget the gaps until now."""
        self._longest = 0.0

    def longest(self) -> float:
        """Seconds, the longest gap since."""
        return self._longest


class Guest:
    """The running guest, our host, and a monitor of our own."""

    def __init__(self, client: Client, monitor: QEMUMonitorProtocol, pulse: Pulse) -> None:
        self.client, self.monitor, self.pulse = client, monitor, pulse

    def stops(self) -> list[float]:
        """Seconds of each stop since the last call, by the clock in QEMU's events."""
        self.monitor.cmd("query-status")  # what came before its answer is here then
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
    """Wait, or end the program."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            sys.exit(f"{say}: not within {seconds:g} s")
        time.sleep(POLL)


@contextlib.contextmanager
def hosted(folder: Path) -> Iterator[Guest]:
    """`livedump qemu` with the guest in a process of its own, until it has done its work for some
    seconds."""
    mount, console = folder / "mount", folder / "console"
    mount.mkdir()
    drive = f"file={GUEST}/disk.img,format=raw,if=virtio,cache=none,aio=threads,readonly=on"
    process = subprocess.Popen(
        [sys.executable, "-m", "livedumpfs.cli", "qemu", "--mount", mount, "--",
         "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "1G", "-smp", "2",
         "-display", "none", "-no-reboot", "-serial", f"file:{console}",
         "-serial", f"unix:{folder}/pulse,server=on,wait=off",
         "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
         "-kernel", f"{GUEST}/vmlinuz", "-initrd", f"{GUEST}/initramfs.gz", "-append",
         "console=ttyS0 quiet init_on_alloc=0 churn=3 fill=96 pulse=/dev/ttyS1",
         "-drive", drive],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr
        lines = [process.stderr.readline() for _ in "12"]
        if not lines[1].startswith("device "):
            sys.exit("".join(lines))
        pulse = Pulse(folder / "pulse")
        monitor = QEMUMonitorProtocol(str(folder / "qmp"))
        monitor.connect()
        with Client(lines[1].split()[1]) as client:
            until(lambda: "beat" in console.read_text(errors="replace"), BOOT, "the guest's start")
            until(lambda: pulse.bytes > 2000, BOOT, "the guest's pulse")
            yield Guest(client, monitor, pulse)
        monitor.close()
    finally:
        process.terminate()
        process.wait(DEADLINE)


# --------------------------------------------------------------------- the ways to dump


def ours(options: InitOptions) -> Way:
    """INIT, START, SWEEP to the seal."""

    def dump(guest: Guest, out: Path) -> None:
        client = guest.client
        client.init(str(out), options)
        client.start()
        client.sweep()
        *_, last = client.progress(POLL, DEADLINE)
        if last.verdict is not Verdict.CONSISTENT:
            sys.exit(f"{out} is {last.verdict.name}: {client.error()}")
        client.release()

    return dump


def theirs(format: str) -> Way:
    """dump-guest-memory."""

    def dump(guest: Guest, out: Path) -> None:
        arguments = {"paging": False, "protocol": f"file:{out}", "format": format}
        guest.monitor.cmd("dump-guest-memory", **arguments)

    return dump


def background(guest: Guest, out: Path) -> None:
    """A migration stream by background-snapshot, unthrottled."""
    one = {"capability": "background-snapshot", "state": True}
    guest.monitor.cmd("migrate-set-capabilities", capabilities=[one])
    guest.monitor.cmd("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    guest.monitor.cmd("migrate", uri=f"exec:cat > {out}")

    def over() -> bool:
        found = guest.monitor.cmd("query-migrate")
        status = found.get("status") if isinstance(found, dict) else None
        if status in ("failed", "cancelled"):
            sys.exit(f"background-snapshot {status}")
        return bool(status == "completed")

    until(over, DEADLINE, "background-snapshot")
    one["state"] = False
    guest.monitor.cmd("migrate-set-capabilities", capabilities=[one])


def stop_and_cont(guest: Guest, out: Path) -> None:
    """QMP's pair alone."""
    del out
    guest.monitor.cmd("stop")
    guest.monitor.cmd("cont")


def nothing(guest: Guest, out: Path) -> None:
    """The guest by itself."""
    del guest, out
    time.sleep(QUIET)


KDUMP = InitOptions(format=Format.KDUMP, compression=Compression.ZSTD)
WAYS: dict[str, Way] = {
    "nothing": nothing,
    "stop and cont": stop_and_cont,
    "livedump elf": ours(InitOptions(format=Format.ELF)),
    "livedump kdump zstd": ours(KDUMP),
    "dump-guest-memory elf": theirs("elf"),
    "dump-guest-memory kdump-zlib": theirs("kdump-zlib"),
    "background-snapshot": background,
}


# ------------------------------------------------------------------------ looking at it


def readers(path: Path) -> str:
    """Those that open the file as a Linux core."""
    if not path.exists():
        return ""
    with tempfile.TemporaryDirectory() as folder:
        tried: dict[str, list[str | Path]] = {
            "drgn": [sys.executable, "-c", RELEASE, path],
            "makedumpfile": ["makedumpfile", "--dump-dmesg", path, f"{folder}/log"],
        }
        if CRASH.exists() and SYMBOLS.exists():
            tried["crash"] = [CRASH, "-s", SYMBOLS, path]
        can = [name for name, command in tried.items() if succeeds(command)]
    return ", ".join(can) or "none"


def succeeds(command: list[str | Path]) -> bool:
    """Without its words; crash is told to list the tasks."""
    done = subprocess.run(
        command, input=b"ps\nquit\n", capture_output=True, timeout=DEADLINE, check=False
    )
    return done.returncode == 0


def spread(seconds: list[float]) -> str:
    """Median and largest, in milliseconds."""
    if not seconds:
        return "-"
    return f"{statistics.median(seconds) * 1e3:.1f} ({max(seconds) * 1e3:.1f})"


class Figures:
    """Of one way."""

    def __init__(self) -> None:
        self.stops: list[float] = []
        self.gaps: list[float] = []
        self.totals: list[float] = []
        self.own: list[int] = []
        """Of ours: nanoseconds that the swap took."""
        self.size = 0
        self.readers = ""

    def row(self, name: str) -> list[str]:
        """Of the table."""
        total = f"{statistics.median(self.totals):.2f} s" if self.size else "-"
        size = format_size(self.size) if self.size else "-"
        return [name, spread(self.stops), spread(self.gaps), total, size, self.readers or "-"]


def measure(guest: Guest, name: str, out: Path, figures: Figures) -> None:
    """One dump in that way."""
    time.sleep(0.3)
    guest.stops()
    guest.pulse.begin()
    before = time.monotonic()
    WAYS[name](guest, out)
    figures.totals.append(time.monotonic() - before)
    time.sleep(0.1)  # the pulse of a guest that has just resumed
    figures.gaps.append(guest.pulse.longest())
    figures.stops += guest.stops()
    if "livedump" in name:
        figures.own.append(guest.client.status().counters["arm_ns"])
    if out.exists():
        figures.size = out.stat().st_blocks * 512
        figures.readers = figures.readers or readers(out)
        out.unlink()


def compare(repeats: int, folder: Path) -> Iterator[Table | str]:
    """All ways in turn, and the first answer."""
    found = {name: Figures() for name in WAYS}
    with hosted(folder) as guest:
        for _ in range(repeats):
            for name, figures in found.items():
                measure(guest, name, folder / "dump", figures)
        times = [answer(guest.client, RELEASE) for _ in range(repeats)]
        known = [answer(guest.client, SYMBOLIC) for _ in range(repeats)] if SYMBOLS.exists() else []
    table = Table("way", "stop ms", "gap ms", "total", "size", "opened by")
    for name, figures in found.items():
        table.add_row(*figures.row(name))
    yield table
    arming = [one / 1e9 for figures in found.values() for one in figures.own]
    yield f"arming, within the stop of livedump: {spread(arming)} ms"
    yield f"drgn's answer {answers(times)}"
    if known:
        yield f"drgn's list of tasks, with the kernel's symbols, {answers(known)}"


def answers(times: list[float]) -> str:
    """Median, and all."""
    shown = ", ".join(f"{one:.2f}" for one in times)
    return f"{statistics.median(times):.2f} s after START (of {shown})"


def answer(client: Client, program: str) -> float:
    """Seconds from START's return to the end of that drgn program."""
    client.init(None)
    try:
        client.start()
        before = time.monotonic()
        vmcore = Path(client.mountpoint) / "snapshot" / "vmcore"
        subprocess.run(
            [sys.executable, "-c", program, vmcore, SYMBOLS],
            stdout=subprocess.DEVNULL, timeout=DEADLINE, check=True,
        )  # fmt: skip
        return time.monotonic() - before
    finally:
        client.release()


def arming(size: int, repeats: int) -> str:
    """The swap of a guest's memory that is all there; its vCPU idles in the firmware."""
    words = ["qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m"]
    with QemuMachine([*words, f"{size >> 20}M"]) as machine:
        piece = os.urandom(1 << 20)
        for at in range(1 << 20, size, 1 << 20):  # the firmware works in the first
            os.pwrite(machine.arena.fd, piece, at)
        machine.start()
        live, took = LiveDump(machine), []
        for _ in range(repeats):
            live.init(None)
            live.start()
            took.append(live.counters().arm_ns / 1e9)
            live.release()
    return f"{format_size(size)}: arming {spread(took)} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arming", default="512M,1G,2G,4G", help="sizes, or empty for none")
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="livedump-bench-") as name:
        for one in compare(args.repeats, Path(name)):
            console.print(one)
    for text in filter(None, args.arming.split(",")):
        console.print(arming(parse_size(text), args.repeats))


if __name__ == "__main__":
    main()
