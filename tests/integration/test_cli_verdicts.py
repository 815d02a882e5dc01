# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands: snapshots that tear, dumps that are kept for readers, dumps that have gone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import wait_for

from livedumpfs.client import Client
from livedumpfs.dumpfile import open_dump
from tests.fixtures import forks

LIVEDUMP = str(Path(__file__).resolve().parents[2] / "scripts" / "livedump")
DEADLINE = 300.0
RAM = 32 << 20

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def host(run_host: Any) -> Any:
    return run_host(ram="32MiB")


@pytest.fixture
def begin(host: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    env = {**host.environment, "LIVEDUMP_PYTHON": sys.executable, "LIVEDUMP_DEVICE": host.device}
    made: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        made.append(
            forks.start(
                [LIVEDUMP, *words],
                env=env,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return made[-1]

    yield start
    for process in made:
        if process.poll() is None:
            process.kill()
            process.wait(DEADLINE)


@pytest.fixture
def run(begin: Callable[..., subprocess.Popen[str]]) -> Run:
    def to_its_end(*words: str, code: int = 0) -> tuple[str, str]:
        return ended(begin(*words), code)

    return to_its_end


def ended(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == code, f"{process.returncode}: {out}{err}"
    assert "Traceback" not in err
    return out, err


def row(text: str, label: str) -> str:
    """What `status` says there."""
    found = re.search(rf"^{label} +(.*)$", text, re.M)
    assert found, f"no {label} in {text}"
    return found[1]


def test_a_snapshot_without_a_limit_holds_the_machine(host: Any, run: Run) -> None:
    """All that the guest writes; what it may take is said, and known at INIT."""
    out, err = run("start", "--no-target")
    assert "may take 32 MiB of memory, until `livedump release`\n" in err
    parts = re.search(r"stopped for .* \(quiesce .*, arm .*, resume .*, other .*\), and runs", out)
    assert parts, out
    with Client(host.device) as client:
        wait_for(
            lambda: (
                4 * client.status().counters["slots_peak"] > client.status().counters["granules"]
            ),
            client.status,
        )
        assert (client.status().settings["spill_limit"], client.status().lost) == (RAM, 0)
    told = run("status")[0]
    assert row(told, "policy") == "spill, up to 32 MiB"
    assert row(told, "verdict") == "consistent so far"
    run("release")
    assert row(run("status")[0], "verdict") == "consistent"
    host.runs_on()


def test_a_snapshot_that_tears_is_torn_everywhere(host: Any, run: Run) -> None:
    _, err = run("start", "--no-target", "--spill-limit", "64K")
    assert "may take 64 KiB of memory" in err and "beyond that is lost" in err
    with Client(host.device) as client:
        wait_for(lambda: client.status().broken, client.status)
        assert client.status().verdict.name == "NONE"
    told = run("status")[0]
    assert row(told, "verdict") == "torn so far"
    assert row(told, "lost").startswith("pages 0x") and not re.search("^done", told, re.M)
    why = "more was overwritten than fits into the 64 KiB of memory that it may take"
    assert row(told, "reason") == why
    info = json.loads(host.read("snapshot/info.json"))
    assert (info["verdict"], info["so_far"], info["reason"]) == (None, "torn", why)
    _, err = run("release", code=3)
    assert err.startswith("livedump: error: the snapshot in memory is torn, ") and why in err
    told = run("status")[0]
    assert (row(told, "verdict"), row(told, "reason")) == ("torn", why)
    assert re.fullmatch(r"by process \d+ of user \d+ in state START", row(told, "released"))
    run("release")  # there is nothing to release any more
    host.runs_on()


def test_a_dump_says_at_once_that_it_tears(host: Any, run: Run, tmp_path: Path) -> None:
    small = ("--policy", "fail", "--granule", "4K", "--pool", "16K", "--sweep-rate", "8M")
    target = str(tmp_path / "dump")
    _, err = run("dump", target, *small, code=3)
    lines = err.splitlines()
    first = next(i for i, line in enumerate(lines) if "warning: " in line)
    assert f"warning: the dump on {target}.incomplete is torn so far, " in lines[first]
    assert "under policy fail more was overwritten" in lines[first]
    assert first < next(i for i, line in enumerate(lines) if "livedump: error: " in line)
    assert err.count("warning") == err.count("livedump: error: ") == 1
    told = run("status")[0]
    assert row(told, "verdict") == "torn" and " lost" in row(told, "done")
    assert not row(told, "done").startswith("32 MiB of 32 MiB")
    assert row(told, "released").endswith("in state FINISH")
    host.runs_on()


def test_a_dump_that_is_cut_off_says_so_afterwards(host: Any, run: Run, tmp_path: Path) -> None:
    run("init", str(tmp_path / "dump"))
    run("start")
    _, err = run("release")
    assert "is incomplete: it was released before it was sealed" in err
    told = run("status")[0]
    assert row(told, "verdict") == "incomplete"
    assert row(told, "released").endswith("in state START, before it was sealed")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "release"])
def test_a_held_dump_is_there_for_its_readers(
    host: Any, run: Run, begin: Callable[..., Any], tmp_path: Path, how: signal.Signals | str
) -> None:
    target = tmp_path / "dump"
    held = begin("dump", str(target), "--hold")
    seen = ""
    while "until Ctrl-C" not in seen:
        line = held.stderr.readline()
        assert line, f"it ended: {seen}"
        seen += line
    snapshot = host.mountpoint / "snapshot"
    assert f"the snapshot stays in {snapshot} until Ctrl-C" in seen
    first = (snapshot / "mem.raw").read_bytes()
    host.runs_on()
    assert (snapshot / "mem.raw").read_bytes() == first and held.poll() is None
    if how == "release":
        run("release")
    else:
        held.send_signal(how)
    out, err = ended(held, 0)
    assert "verdict   consistent" in out
    assert ("released by process" in err) == (how == "release")
    assert err.splitlines()[-1] == "livedump: released; the machine runs at full speed"
    assert not snapshot.exists() or os.listdir(snapshot) == []
    run("verify", str(target))
    host.runs_on()


def test_a_held_dump_whose_host_ends_in_order(
    host: Any, begin: Callable[..., Any], tmp_path: Path
) -> None:
    """It is released then, and not dead: there is nothing to clean up, and no failure."""
    target = tmp_path / "dump"
    held = begin("dump", str(target), "--hold")
    while "until Ctrl-C" not in (line := held.stderr.readline()):
        assert line, "it ended"
    host.end()
    out, err = ended(held, 0)
    assert "verdict   consistent" in out
    said = err.splitlines()
    assert said in (
        ["livedump: the snapshot has gone: its host has ended, and released it"],
        # The last look may just have been in time.
        ["livedump: released as the host ended in state FINISH", said[-1]],
    )
    assert "dead" not in err and "fusermount" not in err
    with open_dump(target) as dump:
        assert dump.verdict == "consistent"


def test_a_held_dump_that_is_torn_ends_as_such(
    host: Any, begin: Callable[..., Any], tmp_path: Path
) -> None:
    small = ("--policy", "fail", "--granule", "4K", "--pool", "16K", "--sweep-rate", "32M")
    held = begin("dump", str(tmp_path / "dump"), "--hold", *small)
    while "until Ctrl-C" not in (line := held.stderr.readline()):
        assert line, "it ended"
    held.send_signal(signal.SIGINT)
    ended(held, 3)


def test_a_pipe_cannot_be_held(run: Run) -> None:
    assert (
        "--hold does not go with standard output"
        in run("dump", "-", "--hold", "--format", "kdump", code=2)[1]
    )
