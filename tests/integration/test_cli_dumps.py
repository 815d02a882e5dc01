# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands, as they are typed: `livedump dump` to its end, with its options."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.forks import TOP
from tests.fixtures.shells import DEADLINE, Shell, runs_on, wait_for


@pytest.mark.parametrize("layout", ["elf", "raw"])
def test_dump_to_a_file(layout: str, shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    out, err = shell.run("dump", target, "--format", layout)
    assert out.startswith("machine stopped for ")
    assert "verdict   consistent" in out
    assert "dump " in err.splitlines()[0]
    assert err.splitlines()[-1].startswith("livedump: released")
    assert "consistent" in shell.run("info", target)[0]
    proof = shell.run("verify", target)[0]
    assert "ledger" in proof
    assert shell.status()["state"] == "UNINIT"
    runs_on(quiet)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_snapshot_without_a_target(at_once: bool, shell: Shell, quiet: str) -> None:
    if at_once:
        shell.run("start", "--no-target", "--spill-limit", "128M")
    else:
        shell.run("init", "--no-target", "--spill-limit", "128M")
        shell.run("start")
    told = shell.status()
    assert (told["state"], told["target"], told["policy"]) == ("START", None, "spill")
    raw = Path(quiet).parent / "snapshot" / "mem.raw"
    first = raw.read_bytes()
    assert len(first) == 16 << 20
    runs_on(quiet)
    assert raw.read_bytes() == first
    told = shell.status()
    assert (told["verdict"], told["so_far"]) == (None, "consistent")
    assert "there is a dump already" in shell.fails("start", "--no-target")
    assert shell.status()["state"] == "START"
    shell.run("release")
    assert not raw.exists()
    runs_on(quiet)


def test_a_snapshot_beyond_its_limit_is_torn_and_named(shell: Shell, quiet: str) -> None:
    """The machine runs on; the verdict, status and finish say which pages are lost."""
    shell.run("start", "--no-target", "--spill-limit", "64K")
    wait_for(lambda: shell.status()["so_far"] == "torn", shell.status)
    runs_on(quiet)
    told = shell.status()
    assert (told["policy"], told["spill_limit"]) == ("spill", 64 << 10)
    assert told["lost_pages"]
    out, _ = shell.run("status")
    assert re.search(r"^policy +spill, up to 64 KiB$", out, re.M)
    assert re.search(r"^lost +pages 0x", out, re.M)
    shell.run("sweep")
    out, err = shell.run("finish", code=3)
    assert re.search(r"^lost +pages 0x", out, re.M)
    assert "the snapshot in memory is torn" in err
    assert "the snapshot in memory is torn" in shell.run("release", code=3)[1]
    runs_on(quiet)


def test_a_forgotten_snapshot_is_released(shell: Shell, quiet: str, tmp_path: Path) -> None:
    shell.run("start", "--no-target", "--max-age", "1s")
    wait_for(lambda: shell.status()["state"] == "UNINIT", shell.status)
    assert shell.status()["expired"] == "released: older than its maximum age of 1 s"
    assert re.search(
        r"^released +by the host in state START: older than its maximum age",
        shell.run("status")[0],
        re.M,
    )
    assert "older than its maximum age of 1 s" in shell.fails("sweep")
    runs_on(quiet)
    # As one that goes on: each step in time, and nothing of the age is left behind.
    target = str(tmp_path / "dump")
    assert "consistent" in shell.run("dump", target, "--max-age", "1h")[0]
    assert shell.status()["expired"] is None
    shell.run("verify", target)


def test_a_raw_dump_with_its_table_at_the_tail(
    shell: Shell, quiet: str, tmp_path: Path, loop_device: Callable[..., str]
) -> None:
    target = loop_device(20 << 20)
    shell.run("dump", target, "--format", "raw", "--table", "tail")
    told = json.loads(shell.run("verify", target, "--json")[0])
    assert (told["format"], told["sidecar"], told["verdict"]) == ("raw", None, "consistent")
    assert told["verified"]["ok"] and told["verified"]["checked"] > 0
    small = loop_device(16 << 20)
    assert "the device has 16 MiB" in shell.fails(
        "dump", small, "--format", "raw", "--table", "tail"
    )
    shell.run("dump", small, "--format", "raw")
    shell.run("verify", small)


def test_a_kdump_by_its_options(shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    words = ("--compress", "zlib", "--level", "1", "--threads", "2")
    shell.run("dump", target, "--format", "kdump", *words)
    out, _ = shell.run("verify", target)
    assert re.search(r"^format +kdump", out, re.M) and re.search(r"^backend +SIGSEGV", out, re.M)
    assert re.search(r"^by sweep +\d+ granules? in \d+ range", out, re.M)
    assert "zlib has no level 10" in shell.fails(
        "dump", target, "--format", "kdump", "--compress", "zlib", "--level", "10", code=2
    )
    assert "compression zlib does not go with format elf" in shell.fails(
        "dump", target, "--compress", "zlib"
    )


def test_no_target_and_a_target_exclude_each_other(shell: Shell, quiet: str) -> None:
    assert "not allowed with" in shell.fails("init", "--no-target", "out", code=2)
    assert "required" in shell.fails("init", code=2)
    assert "--no-target" in shell.fails("start", "--spill-limit", "1M", code=2)
    assert shell.status()["state"] == "UNDEFINED"


def test_dump_to_a_block_device(shell: Shell, quiet: str, loop_device: Callable[..., str]) -> None:
    target = loop_device(24 << 20)
    shell.run("dump", target)
    assert "it holds a consistent dump (use --force" in shell.fails("dump", target)
    shell.run("dump", target, "--force")
    shell.run("verify", target)
    runs_on(quiet)


def test_dump_options_reach_the_dump(shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    shell.run(
        "dump", target, "--policy", "spill", "--arming", "mprotect", "--backend", "uffd",
        "--granule", "64K", "--pool", "1M", "--spill-limit", "8M", "--deadline", "5",
    )  # fmt: skip
    told = json.loads(shell.run("info", target, "--json")[0])
    assert (told["policy"], told["arming"], told["granule_size"]) == ("spill", "mprotect", 65536)
    assert told["backend"] == "userfaultfd"
    status = shell.status()
    shown = tuple(status[name] for name in ("policy", "arming", "backend", "verdict"))
    assert shown == ("spill", "mprotect", "uffd", "consistent")


def test_a_torn_dump_is_no_success(shell: Shell, device: str, tmp_path: Path) -> None:
    """Four slots for a machine that writes hard, and a slow sweep: pages are lost, and named."""
    target = str(tmp_path / "dump")
    out, err = shell.run(
        "dump", target, "--policy", "fail", "--granule", "4K", "--pool", "16K",
        "--sweep-rate", "32M", code=3,
    )  # fmt: skip
    assert "torn" in err
    assert re.search(r"^lost +pages 0x", out, re.M)
    told, _ = shell.run("info", target, code=3)
    assert "verdict     torn" in told
    assert re.search(r"^lost +\d+ granules?: pages 0x", told, re.M)
    shell.run("verify", target, code=3)
    runs_on(device)


def test_a_bar_on_a_terminal(shell: Shell, quiet: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        process = shell.begin("dump", str(tmp_path / "dump"), stderr=theirs)
        os.close(theirs)
        shown = b""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    piece = os.read(ours, 65536)
                except OSError:  # EIO: the other end is closed
                    break
                shown += piece
        assert process.wait(timeout=DEADLINE) == 0
    finally:
        os.close(ours)
    assert "━".encode() in shown
    assert b"16.0/16.0 MiB" in shown


def shape(line: str) -> str:
    """What it says, without numbers, units of time and names of this run."""
    line = re.sub(r"/\S+", "PATH", line)
    line = re.sub(r"\d[\d.:+-]*( [num]?s\b| [KMG]?i?B(/s)?\b)?", "#", line)
    line = re.sub(r", # waits? for a slot", "", " ".join(line.split()))
    return line.replace("# steal,", "# steals,")


def test_the_readme_session(shell: Shell, loop_device: Callable[..., str]) -> None:
    """Its livedump commands but those of Linux, on a smaller machine, print the lines that it
    shows."""
    blocks = re.findall(r"^```console\n(.*?)^```", (TOP / "README.md").read_text(), re.M | re.S)
    sessions = [one for one in blocks if "$ livedump " in one and "--linux" not in one]
    assert len(sessions) == 2
    device = loop_device(32 << 20)
    for part in "".join(sessions).split("$ livedump ")[1:]:
        typed, *lines = re.split(r"^\$ ", part, flags=re.M)[0].splitlines()
        words = typed.replace("512M", "16M").replace("/dev/loop0", device).split(" | ")[0].split()
        if words[-1] == "&":
            shell.host(*words[1:-1])
            continue
        out, err = shell.run(*words)
        printed = {shape(line) for line in (out + err).splitlines()}
        for line in lines:
            assert shape(line) in printed, f"{line!r} is not printed by {typed}:\n{out}{err}"
