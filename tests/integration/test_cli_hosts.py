# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands, as they are typed: hosts, how they are found and how they end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.fixtures.shells import DEADLINE, Shell, begin_slow_dump, mounts_below


def test_no_host(shell: Shell) -> None:
    assert "no host is running" in shell.fails("status")


def test_which_host(shell: Shell, tmp_path: Path) -> None:
    _, first = shell.host("--ram", "8M", "--idle")
    assert shell.status()["device"] == first
    _, second = shell.host("--ram", "8M", "--idle")
    sentence = shell.fails("status")
    assert first in sentence
    assert second in sentence
    assert json.loads(shell.run("status", "--json", "--device", second)[0])["device"] == second
    shell.env["LIVEDUMP_DEVICE"] = first
    assert shell.status()["device"] == first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_host_ends_in_order(number: signal.Signals, shell: Shell, tmp_path: Path) -> None:
    process, device = shell.host("--ram", "8M", "--idle")
    assert mounts_below(tmp_path) == [str(Path(device).parent)]
    process.send_signal(number)
    assert process.wait(timeout=DEADLINE) == 0
    assert not mounts_below(tmp_path)
    assert not Path(device).parent.exists()
    assert not list((tmp_path / "livedumpfs").glob("*.json"))


def test_a_host_that_ends_mid_dump(shell: Shell, tmp_path: Path) -> None:
    process, _ = shell.host("--ram", "16M", "--idle")
    target = str(tmp_path / "dump")
    client = begin_slow_dump(shell, target)
    process.terminate()
    assert process.wait(timeout=DEADLINE) == 0
    client.communicate(timeout=DEADLINE)
    assert client.returncode == 3
    assert "incomplete" in shell.run("info", f"{target}.incomplete", code=3)[0]


def test_a_killed_host_is_cleaned_up_by_the_next(shell: Shell, tmp_path: Path) -> None:
    process, device = shell.host("--ram", "16M", "--idle")
    target = str(tmp_path / "dump")
    client = begin_slow_dump(shell, target)
    process.kill()
    process.wait(timeout=DEADLINE)
    client.communicate(timeout=DEADLINE)
    assert client.returncode == 3
    assert "incomplete" in shell.run("info", f"{target}.incomplete", code=3)[0]
    _, next_device = shell.host("--ram", "8M", "--idle")
    assert mounts_below(tmp_path) == [str(Path(next_device).parent)]
    assert not Path(device).parent.exists()


def test_hosts_that_cannot_be(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    shell.fails("host", "--guest", "text", "--ram", "8M")
    shell.fails("host", "--guest", "nothing", "--ram", "8M")
    shell.fails("host", "--mount", "nowhere", "--ram", "8M")
    assert "not empty" in shell.fails("host", "--mount", "full", "--ram", "8M")
    shell.fails("host", "--ram", "4K", code=2)
    assert not mounts_below(tmp_path)


def test_a_chosen_mount_stays_a_directory(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    process, device = shell.host("--ram", "8M", "--idle", "--mount", "mnt")
    assert device == str(tmp_path / "mnt" / "livedump")
    process.terminate()
    assert process.wait(timeout=DEADLINE) == 0
    assert list((tmp_path / "mnt").iterdir()) == []
