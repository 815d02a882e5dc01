# SPDX-License-Identifier: GPL-2.0-or-later
"""Which worker gets which host, what members are called, and what a cluster must not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from livedumpfs.errors import HostError, UsageError
from livedumpfs.fleet.cluster_workers import assign, refuse_root
from livedumpfs.fleet.credentials import (
    credentials_folder,
    full_address,
    load_credentials,
    make_credentials,
)
from livedumpfs.fleet.worker_side import WorkerFound
from livedumpfs.hosts.usable import HostHere, usable_hosts


def found(computer: str, boot: str, *hosts: tuple[str, str]) -> WorkerFound:
    here = tuple(HostHere(f"/m/{name}/livedump", name, "", mount) for name, mount in hosts)
    return WorkerFound(here, computer, boot, False, None)


def test_each_host_has_one_worker() -> None:
    """Four workers of one computer see the same eight hosts: each gets two."""
    hosts = [(f"vm{i}", f"0:{i}") for i in range(8)]
    members = assign({f"w{i}": found("pc", "boot", *hosts) for i in range(4)})
    assert sorted(members) == [f"vm{i}@pc" for i in range(8)]
    workers = [one.worker for one in members.values()]
    assert {workers.count(one) for one in workers} == {2}


def test_one_that_only_one_worker_may_use_is_that_worker_s() -> None:
    both, alone = ("a", "0:1"), ("b", "0:2")
    members = assign({"w0": found("pc", "x", both, alone), "w1": found("pc", "x", both)})
    assert {name: one.worker for name, one in members.items()} == {"a@pc": "w1", "b@pc": "w0"}


def test_hosts_of_two_computers_with_one_name() -> None:
    """And with equal numbers of their mounts: the boot tells them apart."""
    members = assign({"w0": found("pc", "x", ("a", "0:1")), "w1": found("pc", "y", ("a", "0:1"))})
    assert sorted(members) == ["a@pc", "a@pc-2"]
    assert {one.worker for one in members.values()} == {"w0", "w1"}


def test_root() -> None:
    refuse_root([], allowed=False)
    refuse_root(["w"], allowed=True)
    with pytest.raises(UsageError, match="worker w runs as root"):
        refuse_root(["w"], allowed=False)


def test_addresses() -> None:
    assert full_address("pc:1", insecure=False) == "tls://pc:1"
    assert full_address("pc:1", insecure=True) == "tcp://pc:1"
    assert full_address("tls://pc:1", insecure=False) == "tls://pc:1"
    assert full_address("tcp://pc:1", insecure=True) == "tcp://pc:1"
    for address in ("tcp://pc:1", "ws://pc:1"):
        with pytest.raises(UsageError, match=f"{address} is not encrypted"):
            full_address(address, insecure=False)


def test_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tls"
    monkeypatch.setenv("LIVEDUMP_FLEET_TLS", str(folder))
    assert credentials_folder(None) == str(folder)
    assert credentials_folder("x") == str(Path("x").resolve())
    with pytest.raises(HostError, match="No such file"):
        load_credentials(str(folder))
    assert make_credentials(str(folder)) and not make_credentials(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {one.stat().st_mode & 0o777 for one in folder.iterdir()} == {0o600}
    assert load_credentials(str(folder)).require_encryption


def test_hosts_that_are_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is neither a file nor a host"):
        usable_hosts(["no-such-host"])
    (tmp_path / "livedump").touch()
    with pytest.raises(HostError, match="is not in the mount of a host"):
        usable_hosts([str(tmp_path)])
