#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a new user takes from nothing to a first result: each way of docs/start typed into a
shell in a fresh clone.

    scripts/stopwatch.py [--only WORD]

Prints the table of docs/stopwatch.md. What is typed is typed at once, so the times are those of the
computer and of the network, not of the hand. The clone and all that runs is gone at the end."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

TOP: Final = Path(__file__).resolve().parents[1]
_DEADLINE_S: Final = 1800.0
_GUEST: Final = (
    "qemu-system-x86_64 -m 512M -smp 2 -kernel guest/linux/build/vmlinuz "
    "-initrd guest/linux/build/initramfs.gz -append 'console=ttyS0 quiet churn=1' "
    "-display none -serial file:console -qmp unix:qmp.sock,server=on,wait=off &",
    "until grep -qs 'guest: up' console; do sleep 0.1; done",
)
_HOST: Final = "livedump host --ram 64M --dirty 60% --mount vm1 > host.log & "
_READY: Final = "until grep -qs ^device host.log; do sleep 0.05; done"
_PS: Final = "'for t in for_each_task(): print(t.pid.value_(), t.comm)'"


class Way(NamedTuple):
    """To one first result."""

    result: str
    typed: tuple[str, ...]
    """Commands; what only waits for another one is not counted (`until ...`)."""
    needs: str = ""
    """What the time has in it beside the commands' own work."""


INSTALL: Final = Way(
    "`livedump --version`, from a clone",
    ("make", "livedump --version"),
    "the Python packages are fetched, the C core is compiled",
)
WAYS: Final = (
    Way(
        "`ps` in drgn, of a guest that runs",
        (
            "make -s -C guest/linux all symbols",
            *_GUEST,
            "livedump dump --attach qmp.sock vm.elf",
            f"drgn -q -c vm.elf -s guest/linux/build/vmlinux -e {_PS}",
        ),
        "858 MB of debug symbols are fetched, the guest boots",
    ),
    Way(
        "the same with a guest and symbols that are there",
        (
            *_GUEST,
            "livedump dump --attach qmp.sock vm.elf",
            f"drgn -q -c vm.elf -s guest/linux/build/vmlinux -e {_PS}",
        ),
        "the guest boots",
    ),
    Way(
        "`ps` in crash, of the snapshot in the mount",
        (
            "make -s -C guest/linux crash",
            *_GUEST,
            "mkdir -p vm1",
            "livedump attach qmp.sock --mount vm1 > host.log &",
            _READY,
            "livedump start --device vm1 --no-target",
            "printf 'ps\\nquit\\n' | crash -s guest/linux/build/vmlinux vm1/snapshot/vmcore",
        ),
        "14 MB are fetched, the guest boots",
    ),
    Way(
        "the first checkpoint of a numpy program",
        ("python examples/first_dump.py", "livedump info first.elf"),
    ),
    Way(
        "the first dump by a client in C",
        (
            "mkdir -p vm1",
            _HOST,
            _READY,
            "cc -Inative examples/dump_host.c -o dump_host",
            "./dump_host vm1/livedump vm.kdump",
        ),
    ),
    Way(
        "the first picture of `livedump watch`",
        (
            "mkdir -p vm1",
            _HOST,
            _READY,
            "livedump start --device vm1 --no-target",
            "script -qefc 'livedump watch vm1' picture > /dev/null < /dev/null &",
            "until grep -qs granules picture; do sleep 0.05; done",
        ),
    ),
)


def environment(clone: Path) -> dict[str, str]:
    """That of a shell in which the clone is the one livedumpfs."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LIVEDUMP", "PYTHON", "MAKE", "MFLAGS", "XDG_", "VIRTUAL_ENV"))
    }
    build = clone / "guest/linux/build"
    path = f"{clone}/scripts:{clone}/.venv/bin:{build}:{kept['PATH']}"
    (clone / "run").mkdir(mode=0o700, exist_ok=True)
    return {
        **kept, "PATH": path, "PYTHONPATH": str(clone), "TERM": "xterm-256color",
        "XDG_RUNTIME_DIR": str(clone / "run"), "LINES": "24", "COLUMNS": "80",
    }  # fmt: skip


def measure(way: Way, clone: Path) -> float:
    """Seconds."""
    lines = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT", *way.typed]
    with open(clone / "stopwatch.log", "w") as log:
        begun = time.monotonic()
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join([*lines, "date +%s.%N > done"])],
            cwd=clone, env=environment(clone), stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(_DEADLINE_S)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
    if code and not (clone / "done").exists():
        raise SystemExit(f"{way.result}: exit code {code}\n{(clone / 'stopwatch.log').read_text()}")
    ended = float((clone / "done").read_text())
    for name in ("done", "console", "host.log", "picture", "qmp.sock"):
        (clone / name).unlink(missing_ok=True)
    return ended - time.time() + time.monotonic() - begun


def row(way: Way, seconds: float) -> str:
    """Of the table."""
    count = sum(not line.startswith("until ") for line in way.typed)
    return f"| {way.result} | {count} | {seconds:.1f} | {way.needs} |"


def main() -> int:
    """Returns the exit code."""
    usage = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    usage.add_argument("--only", metavar="WORD", default="", help="results with it in their name")
    usage.add_argument("--venv", metavar="DIR", help="use this one, and do not measure the install")
    args = usage.parse_args()
    ways = [way for way in (INSTALL, *WAYS) if args.only in way.result]
    with tempfile.TemporaryDirectory(prefix="stopwatch-") as folder:
        clone = Path(folder) / "livedumpfs"
        subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{TOP}", clone], check=True)
        if args.venv:
            (clone / ".venv").symlink_to(Path(args.venv).resolve())
            words = [f"{args.venv}/bin/python", "native/build_native.py"]
            subprocess.run(words, cwd=clone, check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["make", "-s", "-C", "guest"], cwd=clone, check=True)
            ways = [way for way in ways if way is not INSTALL]
        print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.0f}\n")
        print("| to | things typed | s | with in it |\n| -- | -- | -- | -- |")
        for way in ways:
            print(row(way, measure(way, clone)), flush=True)
        print(f"\nload at the end {os.getloadavg()[0]:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
