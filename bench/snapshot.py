# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon and how fast a snapshot is read, and how fast a kdump is made, each beside other tools.

answer  the time from START's return to the end of gdb, which prints a global variable from
        snapshot/vmcore before SWEEP. The machine's memory is all allocated, its vCPU writes hard.
read    dd with direct I/O of snapshot/mem.raw, compared with dd of a tmpfs file with the same
        bytes, in turn; the machine writes now and then, or hard with --busy.
kdump   SWEEP to seal with zstd level 1 and 2 threads, compared with `makedumpfile -c -d 0` (zlib)
        of an ELF file in memory with the same bytes, in turn, both to the same folder. The bytes
        are the built-in guest's: pages with a header, and balances at pseudo-random places.

Medians. The ratios count: the times depend on the computer.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from livedumpfs.abi import Compression, Format, State, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.machines.ledger_block import MAGIC
from livedumpfs.machines.unicorn import BUILT_IN_GUEST
from livedumpfs.units import format_size, parse_size

PARTS = ("answer", "read", "kdump")
MEMORY = "/dev/shm"
"""A tmpfs."""
DEADLINE = 600.0
POLL = 0.005
KDUMP = InitOptions(format=Format.KDUMP, compression=Compression.ZSTD, level=1, threads=2)


@contextlib.contextmanager
def host(size: int, *options: str) -> Iterator[Client]:
    """A host whose machine's memory is all allocated, in its own process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "livedumpfs.cli", "host", "--ram", str(size), "--dirty", "100%",
         *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        lines = dict(line.split(maxsplit=1) for line in (process.stdout.readline() for _ in "12"))
        with Client(lines["device"].strip()) as client:
            yield client
    finally:
        process.terminate()
        process.wait(DEADLINE)


def timed(*command: str | Path, says: str = "") -> float:
    """Seconds of a program that must succeed, and whose output must contain `says`."""
    before = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    took = time.monotonic() - before
    if done.returncode or says not in done.stdout:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
    return took


def root(client: Client) -> Path:
    """snapshot/ in the client's mount."""
    return Path(client.mountpoint) / "snapshot"


def answers(size: int, repeats: int, folder: Path) -> str:
    """Times from START's return to gdb's answer."""
    times = []
    with host(size) as client:
        for _ in range(repeats):
            client.init(str(folder / "target"))
            client.start()
            times.append(
                timed("gdb", "-nx", "-batch", "-ex", "print/x ledger[0].magic", BUILT_IN_GUEST,
                      root(client) / "vmcore", says=f"$1 = {MAGIC:#x}")
            )  # fmt: skip
            if client.status().state is not State.START:
                sys.exit("the dump is not in START any more")
            client.release()
    shown = ", ".join(f"{t:.2f}" for t in times)
    return f"{format_size(size)}: {statistics.median(times):.2f} s to gdb's answer (of {shown})"


def dd_rate(path: Path, size: int) -> float:
    """Bytes per second of one dd."""
    return size / timed("dd", f"if={path}", "of=/dev/null", "bs=1M", "iflag=direct")


def read_rates(size: int, repeats: int, folder: Path, options: list[str]) -> str:
    """mem.raw through the mount, and the same bytes from memory."""
    with host(size, *options) as client, tempfile.NamedTemporaryFile(dir=MEMORY) as same:
        client.init(str(folder / "target"))
        client.start()
        raw = root(client) / "mem.raw"
        timed("dd", f"if={raw}", f"of={same.name}", "bs=1M", "iflag=direct")
        pairs = [(dd_rate(raw, size), dd_rate(Path(same.name), size)) for _ in range(repeats)]
        timed("cmp", raw, same.name)
        client.release()
    mount, memory = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    ratio = statistics.median(a / b for a, b in pairs)
    writing = "is idle" if options else "writes hard"
    return (
        f"{format_size(size)}, the machine {writing}: mem.raw {format_size(mount)}/s, "
        f"tmpfs {format_size(memory)}/s, ratio {ratio:.2f}"
    )


def kdump_seconds(client: Client, target: Path) -> float:
    """Seconds from SWEEP to the seal."""
    before = time.monotonic()
    client.sweep()
    *_, last = client.progress(POLL, DEADLINE)
    took = time.monotonic() - before
    if last.verdict is not Verdict.CONSISTENT:
        sys.exit(f"{target} is {last.verdict.name}: {client.error()}")
    return took


def kdump_rates(size: int, repeats: int, folder: Path) -> str:
    """A kdump of ours and one of makedumpfile's, of the same instant."""
    target, other = folder / "ours", folder / "theirs"
    ours, theirs, sizes = [], [], []
    with host(size, "--idle") as client, tempfile.NamedTemporaryFile(dir=MEMORY) as core:
        for _ in range(repeats):
            client.init(str(target), KDUMP)
            client.start()
            shutil.copyfile(root(client) / "vmcore", core.name)
            ours.append(kdump_seconds(client, target))
            client.release()
            theirs.append(timed("makedumpfile", "-c", "-d", "0", core.name, other))
            sizes.append((target.stat().st_size, other.stat().st_size))
            target.unlink()
            other.unlink()
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    results = [
        f"{format_size(size / statistics.median(times))}/s, {format_size(statistics.median(made))}"
        for times, made in zip((ours, theirs), zip(*sizes, strict=True), strict=True)
    ]
    return (
        f"{format_size(size)}: zstd-1, 2 threads: {results[0]}; makedumpfile -c: {results[1]}; "
        f"{ratio:.2f} times as fast"
    )


def main() -> None:
    """Print one line for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--answer-size", default="4GiB", help="of the machine; default: 4GiB")
    parser.add_argument("--size", default="1GiB", help="of the other machines; default: 1GiB")
    parser.add_argument("--repeats", type=int, default=5, help="per figure; default: 5")
    parser.add_argument("--busy", action="store_true", help="read while the machine writes hard")
    parser.add_argument("--directory", default=MEMORY, help=f"for targets; default: {MEMORY}")
    args = parser.parse_args()
    size = parse_size(args.size)
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        folder = Path(name)
        for part in args.parts:
            if part == "answer":
                line = answers(parse_size(args.answer_size), args.repeats, folder)
            elif part == "read":
                line = read_rates(size, args.repeats, folder, [] if args.busy else ["--idle"])
            elif part == "kdump":
                line = kdump_rates(size, args.repeats, folder)
            else:
                parser.error(f"no such part: {part}")
            print(f"{part}: {line}", flush=True)


if __name__ == "__main__":
    main()
