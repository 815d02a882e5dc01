# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of one running QEMU guest: ours, and QEMU's own ways, in turn.

First the guest is under `livedump qemu`; then it is in a QEMU that runs already, to which `livedump
attach` has attached. It is that of tests/qemu (Debian's kernel, 2 vCPUs; processes that write
memory, and one that reads a disk), with the device `vmcoreinfo`, over which it tells QEMU's own
dumps what debuggers need. The figures of each way:

stop    from QEMU's event STOP to its RESUME, by QEMU's own clock.
counted the same stop as `query-migrate` has it, in whole ms.
pair    the same time for QMP's `stop` and `cont` alone, just before. They also flush disks, and
        each way contains them; `rest`: the stop without that pair.
swap    the part of our rest that the swap of the views takes, by the core's clock.
gap     the guest writes a byte to a serial port every millisecond: the longest time between two
        bytes, as they arrive here; `nothing`: the longest one in 2 s without a dump.
total   until the file is complete and its last byte handed to the kernel (ours: synced).
size    of the file, without holes.

arming  time of the swap, for guests of several sizes that store to all of their memory.
pages   a guest on huge pages beside one on small ones (guest_pages.py).
answer  from START's call until drgn has read the kernel's release from snapshot/vmcore.

Medians, with the largest value. The ratios count: the times depend on the computer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import computer
import firmware
import guest_pages
import report
from accelerator import accelerator, why_no_kvm, why_no_linux
from guest_ways import (
    ALONE,
    ATTACHED,
    DUMPS,
    HOSTED,
    MIGRATES,
    THEIRS,
    Way,
    downtime,
    stop_and_cont,
)
from measurement import Bar, Measurement
from rich.console import Console
from rich.table import Table
from served_guest import DEADLINE, GUEST, KERNEL, Guest, attached, hosted, until

from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.units import format_size, parse_size

CRASH, SYMBOLS = GUEST / "crash", GUEST / "vmlinux"
"""From `make -C guest/linux crash symbols`; optional, for the check which tools read a dump."""
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
ROUND = firmware.ROUNDS
FLAT = 2.0
"""The swap may grow by this factor: it takes a fraction of a millisecond, so noise is a larger part
of it than of a whole stop."""


def readers(path: Path) -> str:
    """The tools that can open the file as a Linux core."""
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
    """Whether a command succeeds; its output is dropped. crash is told to list the tasks."""
    done = subprocess.run(
        command, input=b"ps\nquit\n", capture_output=True, timeout=DEADLINE, check=False
    )
    return done.returncode == 0


def spread(seconds: list[float]) -> str:
    """Median and largest value, in milliseconds."""
    if not seconds:
        return "-"
    return f"{statistics.median(seconds) * 1e3:.1f} ({max(seconds) * 1e3:.1f})"


class Figures:
    """The figures of one way."""

    def __init__(self) -> None:
        self.stops: list[float] = []
        self.counted: list[float] = []
        self.pairs: list[float] = []
        self.rests: list[float] = []
        self.swaps: list[float] = []
        self.gaps: list[float] = []
        self.totals: list[float] = []
        self.size = 0
        self.readers = ""

    def _times(self) -> list[list[float]]:
        return [self.stops, self.counted, self.pairs, self.rests, self.swaps, self.gaps]

    def row(self, name: str) -> list[str]:
        """The row of the table."""
        times = [spread(one) for one in self._times()]
        total = f"{statistics.median(self.totals):.2f} s" if self.size else "-"
        size = format_size(self.size) if self.size else "-"
        return [name, *times, total, size, self.readers or "-"]


COLUMNS = [
    "way", "stop ms", "counted ms", "pair ms", "rest ms", "swap ms", "gap ms", "total", "size",
    "opened by",
]  # fmt: skip


def pair(guest: Guest) -> float:
    """Seconds of one pair of QMP's stop and cont."""
    guest.stops()
    stop_and_cont(guest, Path())
    return sum(guest.stops())


def measure(guest: Guest, name: str, way: Way, out: Path, figures: Figures) -> None:
    """One dump in the given way."""
    time.sleep(0.3)
    alone = pair(guest) if name not in ALONE else None
    time.sleep(0.3)
    guest.stops()
    guest.pulse.begin()
    before = time.monotonic()
    way(guest, out)
    figures.totals.append(time.monotonic() - before)
    time.sleep(0.1)  # let the pulse of the resumed guest become regular
    figures.gaps.append(guest.pulse.longest())
    stopped = guest.stops()
    figures.stops += stopped
    if alone is not None:
        figures.pairs.append(alone)
        figures.rests.append(sum(stopped) - alone)
    if name in HOSTED:
        figures.swaps.append(guest.client.status().counters["arm_ns"] / 1e9)
    if name in MIGRATES:
        figures.counted.append(downtime(guest))
    if out.exists():
        figures.size = out.stat().st_blocks * 512
        figures.readers = figures.readers or readers(out)
        out.unlink()


def in_turn(guest: Guest, repeats: int, ours: Mapping[str, Way], out: Path) -> dict[str, Figures]:
    """All ways, each `repeats` times."""
    ways = {**ALONE, **ours, **THEIRS}
    found = {name: Figures() for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            measure(guest, name, way, out, found[name])
    return found


def table(
    title: str, shown: str, found: Mapping[str, Figures], ours: Iterable[str], peers: Iterable[str]
) -> Measurement:
    """Our stops beside the shortest of the `peers`."""
    rows = [figures.row(way) for way, figures in found.items()]
    made = Measurement("guest", f"{title}, {shown}, {accelerator(KERNEL)}", COLUMNS, rows)
    if why_no_linux(KERNEL):
        made.notes.append(f"Not under KVM: {why_no_linux(KERNEL)}.")
    shortest = min(statistics.median(found[way].stops) for way in peers)
    for way in ours:
        text = f"{shown}: stop of {way} / the shortest of QEMU's own that make a vmcore"
        made.bars.append(
            Bar(text, statistics.median(found[way].stops) / shortest, 1, at_least=False)
        )
    return made


def compare(size: int, repeats: int, folder: Path) -> list[Measurement]:
    """A guest of `size` bytes of RAM: under us, with the first answer; then attached."""
    shown = format_size(size)
    for name in ("hosted", "attached"):
        (folder / name).mkdir()
    with hosted(folder / "hosted", size) as guest:
        found = in_turn(guest, repeats, HOSTED, folder / "dump")
        times = [answer(guest.client, RELEASE) for _ in range(repeats)]
        known = [answer(guest.client, SYMBOLIC) for _ in range(repeats)] if SYMBOLS.exists() else []
    ours = table("A Debian guest under us", shown, found, HOSTED, DUMPS)
    ours.notes.append(f"drgn's answer {answers(times)}")
    if known:
        ours.notes.append(f"drgn's list of tasks, with the kernel's symbols, {answers(known)}")
    text = "s from START's call to drgn's first answer, median"
    ours.bars.append(Bar(text, statistics.median(times), 2, at_least=False))
    with attached(folder / "attached", size) as guest:
        found = in_turn(guest, repeats, ATTACHED, folder / "dump")
    theirs = table("The same guest, attached to while it runs", shown, found, ATTACHED, DUMPS)
    return [ours, theirs]


def answers(times: list[float]) -> str:
    """The median, and all values."""
    shown = ", ".join(f"{one:.2f}" for one in times)
    return f"{statistics.median(times):.2f} s after START's call (of {shown})"


def answer(client: Client, program: str) -> float:
    """Seconds from START's call to the end of that drgn program."""
    client.init(None, InitOptions(spill_limit=1 << 30))  # room for the whole guest: no page is lost
    try:
        before = time.monotonic()
        client.start()
        vmcore = Path(client.mountpoint) / "snapshot" / "vmcore"
        subprocess.run(
            [sys.executable, "-c", program, vmcore, SYMBOLS],
            stdout=subprocess.DEVNULL, timeout=DEADLINE, check=True,
        )  # fmt: skip
        return time.monotonic() - before
    finally:
        client.release()


def swaps(size: int, accelerator: str, bios: Path, repeats: int) -> list[float]:
    """Seconds of each swap, for a guest whose memory is all allocated and that stores to it."""
    words = ["-accel", accelerator, "-display", "none", "-nodefaults", "-bios", str(bios)]
    with QemuMachine(["qemu-system-x86_64", *words, "-m", f"{size >> 20}M"]) as machine:
        piece = os.urandom(1 << 20)
        for at in range(1 << 20, size, 1 << 20):  # the guest does not store above 3 GiB
            os.pwrite(machine.arena.fd, piece, at)
        machine.start()
        until(lambda: machine.arena.read(ROUND, 1) > b"\1", DEADLINE, "the guest's first round")
        live, took = LiveDump(machine), []
        for _ in range(repeats):
            live.init(None, DumpSettings(policy="fail"))
            live.start()
            took.append(live.counters().arm_ns / 1e9)
            live.release()
    return took


def arming(sizes: list[int], repeats: int, folder: Path) -> Measurement:
    """Shows that the swap does not grow with the memory."""
    ways = ["tcg", *(["kvm"] if not why_no_kvm() else [])]
    found = Measurement("arming", "The swap, ms", ["RAM", *ways])
    if why_no_kvm():
        found.notes.append(f"Not under KVM: {why_no_kvm()}.")
    bios, middle = firmware.build(folder), {}
    for size in sizes:
        took = {way: swaps(size, way, bios, 3 * repeats) for way in ways}
        found.rows.append([format_size(size), *(spread(took[way]) for way in ways)])
        middle |= {(way, size): statistics.median(took[way]) for way in ways}
    small, large = sizes[0], sizes[-1]
    for way in ways if len(sizes) > 1 else ():
        text = f"swap at {format_size(large)} / at {format_size(small)}, {way}"
        ratio = middle[way, large] / middle[way, small]
        found.bars.append(Bar(text, ratio, FLAT, at_least=False))
    return found


def show(console: Console, found: Measurement) -> None:
    """Print the measurement, also as Markdown."""
    table = Table(*found.columns, title=found.title)
    for row in found.rows:
        table.add_row(*row)
    console.print(table)
    for note in found.notes:
        console.print(note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--guests", default="1G", help="sizes of the guest, e.g. 1G,2G,4G")
    parser.add_argument("--arming", default="512M,1G,2G,4G", help="sizes, or empty for none")
    parser.add_argument("--only-arming", action="store_true")
    parser.add_argument("--pages", default="1G", help="size of the guests on huge pages, or empty")
    parser.add_argument("--only-pages", action="store_true")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(f"load {computer.load():.1f}")
    sizes = [parse_size(text) for text in filter(None, args.arming.split(","))]
    found = []
    with tempfile.TemporaryDirectory(prefix="livedump-bench-") as name:
        for text in filter(
            None, "" if args.only_arming or args.only_pages else args.guests.split(",")
        ):
            folder = Path(name) / text
            folder.mkdir()
            for one in compare(parse_size(text), args.repeats, folder):
                found.append(one)
                show(console, one)
        if sizes and not args.only_pages:
            found.append(arming(sizes, args.repeats, Path(name)))
            show(console, found[-1])
        if args.pages and not args.only_arming:
            found.append(guest_pages.measure(parse_size(args.pages), 3, Path(name)))
            show(console, found[-1])
    bars = Table(*report.BAR_COLUMNS, title="What must hold")
    for row in report.bar_rows(found):
        bars.add_row(*row)
    console.print(bars)
    console.print(f"load {computer.load():.1f} at the end")


if __name__ == "__main__":
    main()
