# SPDX-License-Identifier: GPL-2.0-or-later
"""Which host is meant, without one: the registry and the kernel's list of mounts are told."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.cli.outcome import option
from livedumpfs.errors import HostError
from livedumpfs.hosts import device, mounted, registry
from livedumpfs.hosts.device import find_device, has_ended, unreachable
from livedumpfs.hosts.mounted import Mount
from livedumpfs.hosts.registry import Entry

ME, OTHER = os.geteuid(), 54321


class Hosts:
    """Those that run, and their mounts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.entries: list[Entry] = []
        self.mounts: list[Mount] = []
        monkeypatch.setattr(registry, "running", lambda: self.entries)
        monkeypatch.setattr(device, "our_mounts", lambda: iter(self.mounts))
        monkeypatch.delenv("LIVEDUMP_DEVICE", raising=False)

    def add(self, pid: int, user: int = ME, machine: str = "ledger", others: bool = False) -> str:
        """Its device."""
        mount = self.folder / f"host-{pid}"
        mount.mkdir()
        self.entries.append(Entry(pid, 0, str(mount), machine))
        self.mounts.append(Mount(str(mount), user, others))
        return str(mount / "livedump")


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(tmp_path, monkeypatch)


def refusal(device: str | None = None) -> str:
    """In the words of the command line."""
    with pytest.raises(HostError) as caught:
        find_device(device)
    return caught.value.worded(option)


def test_each_way_to_name_one(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.add(12, machine="other")
    wanted = hosts.add(77)
    (tmp_path / "link").symlink_to(tmp_path / "host-77")
    monkeypatch.chdir(tmp_path.parent)
    for name in ("77", "host-77", "ledger", wanted, str(tmp_path / "host-77")):
        assert find_device(name) == wanted
        monkeypatch.setenv("LIVEDUMP_DEVICE", name)
        assert find_device() == wanted
    for name in (str(tmp_path / "link"), f"{tmp_path.name}/host-77", f"{tmp_path}/host-77/"):
        assert os.path.realpath(find_device(name)) == wanted
    # A path stays what it is, wherever it leads: opening it says why not.
    assert find_device("/no/where/livedump") == "/no/where/livedump"


def test_a_file_of_that_name_comes_first(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.add(77)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "77").touch()
    assert find_device("77") == "77"


def test_what_is_no_host(hosts: Hosts, tmp_path: Path) -> None:
    nothing = "is neither a file nor a host's pid or name (no host is running)"
    assert refusal("77") == f"77 {nothing}"
    assert refusal("ledger") == f"ledger {nothing}"
    assert refusal(str(tmp_path)) == f"{tmp_path} is not the mount of a host (no host is running)"
    here, _ = hosts.add(77), hosts.add(78, OTHER)
    assert refusal("78x").endswith(f"(running: {here})")


def test_several_of_a_name(hosts: Hosts) -> None:
    first, second = hosts.add(1), hosts.add(2)
    choose = "(choose one with --device or LIVEDUMP_DEVICE)"
    assert refusal("ledger") == f"2 hosts are called ledger: {first}, {second} {choose}"
    assert refusal() == f"2 hosts are running: {first}, {second} {choose}"
    with pytest.raises(HostError, match=r"\(choose one with device or LIVEDUMP_DEVICE\)"):
        find_device()


def test_hosts_of_other_users_do_not_count(hosts: Hosts) -> None:
    assert refusal() == "no host is running (start one with `livedump host`)"
    theirs = hosts.add(1, OTHER)
    said = refusal()
    assert "no host is running that this user may use, only that of pid 1, user 54321" in said
    assert ("--allow-other" if ME == 0 else "--group") in said
    mine = hosts.add(2)
    assert find_device() == mine
    assert find_device("1") == theirs  # a user who names it is told why it cannot be used
    hosts.add(3, OTHER)
    assert find_device() == mine


def test_one_that_lets_others_in_counts(hosts: Hosts) -> None:
    theirs = hosts.add(1, OTHER, others=True)
    assert refusal()  # and does not let this user at its file
    Path(theirs).touch()
    assert find_device() == theirs
    mine = hosts.add(2)
    assert refusal().startswith(f"2 hosts are running: {theirs}, {mine} ")


def test_a_host_without_its_mount_does_not_count(hosts: Hosts) -> None:
    hosts.add(1)
    hosts.mounts.clear()
    mine = hosts.add(2)
    assert find_device() == mine


def test_why_a_mount_cannot_be_used(hosts: Hosts, tmp_path: Path) -> None:
    theirs = hosts.add(1, OTHER)
    said = unreachable(theirs, PermissionError(13, "x")).worded(option)
    assert f"cannot use {theirs}: Permission denied (it is the host of user 54321: run this" in said
    assert ("--allow-other" if ME == 0 else "--group") in said
    hosts.mounts.append(Mount("/m/a b;c", ME, open_to_others=False))
    said = str(unreachable("/m/a b;c/livedump", OSError(107, "x")))
    assert said.endswith("clean up with `fusermount -u '/m/a b;c'`)")


def test_our_mounts_are_told_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "23 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "40 23 0:50 / /m/a\\040b\\134040 rw,nosuid - fuse.livedumpfs livedumpfs rw,user_id=7,"
        "group_id=0,default_permissions\n"
        "41 23 0:51 / /m/c rw - fuse.livedumpfs livedumpfs rw,user_id=0,group_id=0,allow_other\n"
        "42 23 0:52 / /m/d rw - fuse.sshfs livedumpfs rw,user_id=0,group_id=0\n"
    )
    monkeypatch.setattr(mounted, "proc_lines", lambda _: told.splitlines())
    assert list(mounted.our_mounts()) == [
        Mount("/m/a b\\040", 7, open_to_others=False, number="0:50"),
        Mount("/m/c", 0, open_to_others=True, number="0:51"),
    ]  # fmt: skip


def test_a_host_that_took_its_mount_away_has_ended(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = OSError(errno.ENOTCONN, "x")
    path = hosts.add(1)
    assert "its host is dead; clean up with" in str(unreachable(path, gone))
    monkeypatch.setattr(device, "ENDING_S", 0)
    assert not has_ended(path, gone)
    monkeypatch.setattr(device, "ENDING_S", 60)
    hosts.mounts = Unmounting(hosts.mounts)  # while it is looked at
    assert has_ended(path, gone)
    assert str(unreachable(path, gone)).endswith("(its host has ended)")
    assert not has_ended(path, OSError(errno.EIO, "x"))


class Unmounting(list[Mount]):
    """Empty from the third look on."""

    looks = 0

    def __iter__(self) -> Iterator[Mount]:
        self.looks += 1
        return iter([]) if self.looks > 2 else super().__iter__()
