# SPDX-License-Identifier: GPL-2.0-or-later
"""Running hosts: found while they live, and only then."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from livedumpfs.hosts import registry


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(registry, "SYSTEM_DIRECTORY", str(tmp_path / "system"))
    return tmp_path / "livedumpfs"


def write(directory: Path, name: str, **members: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(json.dumps(members))
    return path


def test_an_entry_is_found_until_it_is_removed(own_directory: Path) -> None:
    path = registry.add("/mnt/x", "ledger")
    assert path.parent == own_directory
    assert [(one.pid, one.device) for one in registry.running()] == [
        (os.getpid(), "/mnt/x/livedump")
    ]
    registry.remove(path)
    registry.remove(path)
    assert registry.running() == []


def test_roots_hosts_are_found_too(tmp_path: Path) -> None:
    start = registry.start_time(os.getpid())
    write(
        tmp_path / "system", "1.json",
        pid=os.getpid(), start_time=start, mountpoint="/mnt/y", machine="ledger",
    )  # fmt: skip
    assert [one.mountpoint for one in registry.running()] == ["/mnt/y"]


def test_a_later_process_of_the_same_pid_is_not_the_host(own_directory: Path) -> None:
    write(own_directory, "1.json", pid=os.getpid(), start_time=1, mountpoint="/m", machine="x")
    assert registry.running() == []
    assert len(list(registry.entries())) == 1


def test_a_zombie_is_dead(own_directory: Path) -> None:
    process = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert registry.start_time(process.pid) is None
    finally:
        process.wait()
    assert registry.start_time(process.pid) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"pid": 1}', '{"pid": 1, "more": 2}', "[" * 100_000],
    ids=range(7),
)
def test_what_makes_no_sense_is_skipped(own_directory: Path, text: str) -> None:
    own_directory.mkdir()
    (own_directory / "1.json").write_text(text)
    assert list(registry.entries()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away: needs root")
def test_another_users_entry_is_not_believed(own_directory: Path) -> None:
    start = registry.start_time(os.getpid())
    path = write(
        own_directory, "1.json",
        pid=os.getpid(), start_time=start, mountpoint="/m", machine="x",
    )  # fmt: skip
    assert len(registry.running()) == 1
    os.chown(path, 65534, 65534)
    assert registry.running() == []


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither variable nor directory of a user, and no right to make the system's; where else."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(registry, "USERS_DIRECTORY", str(tmp_path / "user-%d"))
    monkeypatch.setattr(registry, "FALLBACK_DIRECTORY", str(tmp_path / "mine-%d"))
    monkeypatch.setattr(registry, "_is_writable", lambda directory: False)
    return tmp_path / f"mine-{os.geteuid()}"


def test_who_has_no_runtime_directory_gets_a_private_one(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service, cron, sudo -u, a rootless container."""
    path = registry.add("/mnt/x", "ledger")
    assert path.parent == nowhere
    assert nowhere.stat().st_mode & 0o777 == 0o700
    assert [one.mountpoint for one in registry.running()] == ["/mnt/x"]
    # And a client that has the variable finds it.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(nowhere.parent))
    assert registry.directories()[0] == nowhere.parent / "livedumpfs"
    assert [one.mountpoint for one in registry.running()] == ["/mnt/x"]


def test_a_link_in_the_way_of_the_private_one_is_not_followed(nowhere: Path) -> None:
    elsewhere = nowhere.parent / "elsewhere"
    elsewhere.mkdir()
    nowhere.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="another user's"):
        registry.add("/mnt/x", "ledger")
    assert os.listdir(elsewhere) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away: needs root")
def test_another_users_directory_in_the_way_is_not_written_to(nowhere: Path) -> None:
    nowhere.mkdir()
    os.chown(nowhere, 65534, 65534)
    with pytest.raises(PermissionError, match="another user's"):
        registry.add("/mnt/x", "ledger")
    assert os.listdir(nowhere) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away: needs root")
def test_another_users_runtime_directory_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`su` leaves it in the environment; its owner could have put links there."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    path = registry.add("/mnt/x", "ledger")
    assert path.parent == tmp_path / "system"
    assert os.listdir(theirs) == []
