# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands, as they are typed: a dump step by step, and dumps that are interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.fixtures.shells import DEADLINE, Shell, begin_slow_dump, runs_on, wait_for


def test_steps(shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    assert shell.status()["state"] == "UNDEFINED"
    shell.run("init", target)
    assert shell.status()["state"] == "INIT"
    assert shell.run("start")[0].startswith("machine stopped for ")
    assert shell.status()["state"] == "START"
    shell.run("sweep")
    out, _ = shell.run("finish")
    assert "verdict   consistent" in out
    told = shell.run("status")[0]
    assert "state     FINISH" in told
    assert target in told
    shell.run("release")
    assert shell.status()["state"] == "UNINIT"
    shell.run("verify", target)
    shell.run("uninit")


ID = "0123456789abcdef0123456789abcdef"


def test_hold_arm_and_go(shell: Shell, quiet: str, tmp_path: Path) -> None:
    shell.run("init", str(tmp_path / "dump"), "--id", ID)
    shell.run("init", str(tmp_path / "dump"), "--id", ID)
    shell.fails("arm")
    out = shell.run("hold", "--deadline", "55s", "--id", ID)[0]
    assert out.startswith("machine stands since 2")
    assert "by an earlier step" in shell.run("hold", "--id", ID)[0]
    assert "held      since 2" in shell.run("status")[0]
    assert "the machine is held" in shell.fails("start")
    assert shell.run("arm")[0].startswith("snapshot of 2")
    assert shell.status()["held"]["now"] and shell.status()["id"] == ID
    assert shell.run("go")[0].startswith("machine stood for ")
    runs_on(quiet)
    assert "by an earlier step" in shell.run("go", "--id", ID)[0]
    shell.fails("go", "--id", ID[::-1])
    shell.run("release")
    assert "was released" in shell.fails("init", str(tmp_path / "dump"), "--id", ID)


def test_a_hold_that_nobody_ends(shell: Shell, quiet: str) -> None:
    shell.run("init", "--no-target")
    shell.run("hold", "--deadline", "200ms")
    runs_on(quiet)
    assert "let go after 0.2 s" in shell.fails("arm")
    for wrong in ("0", "-1s", "x", "61s"):
        shell.fails("hold", f"--deadline={wrong}", code=2 if wrong != "61s" else 1)
    shell.run("release")


def test_start_at_a_time(shell: Shell, quiet: str) -> None:
    shell.run("init", "--no-target", "--id", ID)
    assert "ahead, more than 600 s" in shell.fails("start", "--at", "+700s")
    assert "passed" in shell.fails("start", "--at", "2026-01-01T00:00:00+00:00")
    shell.fails("start", "--at", "soon", code=2)
    shell.fails("start", "--at", "+1s", "--no-target", code=2)
    out = shell.run("start", "--at", "+1s", "--id", ID)[0]
    assert " late\n" in out and "machine stopped for" in out
    shell.run("start", "--id", ID)
    shell.run("release")


def test_wrong_order(shell: Shell, quiet: str, tmp_path: Path) -> None:
    for step in ("start", "sweep", "finish"):
        shell.fails(step)
    shell.run("init", str(tmp_path / "dump"))
    assert "already" in shell.fails("init", str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    shell.fails("sweep")
    shell.run("release")
    runs_on(quiet)


def test_finish_can_give_up_and_the_dump_goes_on(shell: Shell, quiet: str, tmp_path: Path) -> None:
    shell.run("init", str(tmp_path / "dump"), "--sweep-rate", "1K")
    shell.run("start")
    shell.run("sweep")
    assert "not finished" in shell.fails("finish", "--timeout", "0.3")
    assert shell.status()["state"] == "SWEEP"
    shell.run("release")
    shell.run("info", str(tmp_path / "dump.incomplete"), code=3)


def test_ctrl_c_releases(shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    process = begin_slow_dump(shell, target)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert f"livedump: error: interrupted; the dump on {target}.incomplete is incomplete" in err
    assert shell.status()["state"] == "UNINIT"
    assert "incomplete" in shell.run("info", f"{target}.incomplete", code=3)[0]
    runs_on(quiet)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_dump_releases(
    number: signal.Signals, shell: Shell, quiet: str, tmp_path: Path
) -> None:
    target = str(tmp_path / "dump")
    process = begin_slow_dump(shell, target)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE)
    wait_for(lambda: shell.status()["state"] == "UNINIT", shell.status)
    assert "incomplete" in shell.run("info", f"{target}.incomplete", code=3)[0]
    shell.run("dump", str(tmp_path / "next"))
    runs_on(quiet)


def test_a_dump_released_by_somebody_else(shell: Shell, quiet: str, tmp_path: Path) -> None:
    process = begin_slow_dump(shell, str(tmp_path / "dump"))
    shell.run("release")
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 3
    assert "released meanwhile" in err
