# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to dump one running QEMU guest: ours, and QEMU's own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from served_guest import DEADLINE, POLL, Guest, until

from livedumpfs.abi import Compression, Format, Verdict
from livedumpfs.client import InitOptions

QUIET = 2.0
"""Seconds to observe the guest without a dump."""
Way = Callable[[Guest, Path], None]


def ours(options: InitOptions) -> Way:
    """A dump of ours: INIT, START, and SWEEP to the seal."""

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


def excluding(kinds: str) -> Way:
    """`livedump dump --exclude`, with the start of that command."""

    def dump(guest: Guest, out: Path) -> None:
        done = subprocess.run(
            [
                sys.executable, "-m", "livedumpfs.cli", "dump", "--device", guest.device,
                "--exclude", kinds, out,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr)

    return dump


def theirs(format: str) -> Way:
    """QEMU's dump-guest-memory."""

    def dump(guest: Guest, out: Path) -> None:
        arguments = {"paging": False, "protocol": f"file:{out}", "format": format}
        guest.monitor.cmd("dump-guest-memory", **arguments)

    return dump


def background(guest: Guest, out: Path) -> None:
    """A migration stream with background-snapshot, without a limit of its rate."""
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
    """QMP's stop and cont alone."""
    del out
    guest.monitor.cmd("stop")
    guest.monitor.cmd("cont")


def nothing(guest: Guest, out: Path) -> None:
    """The guest without a dump."""
    del guest, out
    time.sleep(QUIET)


KDUMP = InitOptions(format=Format.KDUMP, compression=Compression.ZSTD)
ELF = InitOptions(format=Format.ELF)
ALONE: dict[str, Way] = {"nothing": nothing, "stop and cont": stop_and_cont}
EXCLUDED = ("zero", "zero,cache,user,free")
HOSTED: dict[str, Way] = {
    "livedump elf": ours(ELF),
    "livedump kdump zstd": ours(KDUMP),
    **{f"livedump --exclude {kinds}": excluding(kinds) for kinds in EXCLUDED},
}
ATTACHED: dict[str, Way] = {"attach elf": ours(ELF), "attach kdump zstd": ours(KDUMP)}
DUMPS: dict[str, Way] = {
    "dump-guest-memory elf": theirs("elf"),
    "dump-guest-memory kdump-zlib": theirs("kdump-zlib"),
}
THEIRS: dict[str, Way] = {**DUMPS, "background-snapshot": background}
MIGRATES = (*ATTACHED, "background-snapshot")
"""Ways of which `query-migrate` says how long the stop was."""


def downtime(guest: Guest) -> float:
    """Seconds that the last migration has stopped the guest, as QEMU says it."""
    found = guest.monitor.cmd("query-migrate")
    assert isinstance(found, dict)
    return float(found["downtime"]) / 1e3
