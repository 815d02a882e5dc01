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
    shell.run("init", str(tmp_path / "dump"), "--sweep-rate", "512K")
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
