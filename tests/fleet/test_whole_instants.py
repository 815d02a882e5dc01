# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that pay each other balance in dumps of one instant, and in others they do not.

LIVEDUMP_FLEET_HOSTS, LIVEDUMP_FLEET_DUMPS: how many (make fleet-many: 8 and 50)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.client import Client, InitOptions
from livedumpfs.fleet import FleetSettings, fleet_dump
from tests.fleet.clusters import AS_ROOT
from tests.fleet.exchange import balance

HOSTS = int(os.environ.get("LIVEDUMP_FLEET_HOSTS", "3"))
DUMPS = int(os.environ.get("LIVEDUMP_FLEET_DUMPS", "2"))
ROOT = bool(AS_ROOT)


def figures(name: str, values: list[int]) -> str:
    ordered = sorted(values)
    middle, last = ordered[len(ordered) // 2], ordered[-1]
    return f"{name}: median {middle / 1e6:.2f} ms, most {last / 1e6:.2f} ms"


def test_barrier_dumps_balance_and_others_do_not(
    exchangers: Callable[..., Any], cluster: Callable[..., Any], tmp_path: Path
) -> None:
    hosts = exchangers(HOSTS)
    client = cluster(2)
    stood, skews = [], []
    for number in range(DUMPS):
        settings = FleetSettings(str(tmp_path / "dumps"), how="barrier", deadline_s=30)
        path, manifest = fleet_dump(client, settings, allow_root=ROOT)
        assert (manifest.verdict, manifest.one_instant) == ("consistent", True), manifest
        found = balance([str(one.dump) for one in manifest.members])
        assert found.right, (number, found, manifest)
        assert found.payments > 0
        stood += [one.taken.pause_ns for one in manifest.members if one.taken]
        assert manifest.skew
        skews.append(manifest.skew.ns)
        for one in [path, *(str(one.dump) for one in manifest.members)]:
            os.unlink(one)
    print(f"{DUMPS} barrier dumps of {HOSTS} hosts balance; {figures('stood', stood)}")
    hosts.runs_on()
    # The check itself: instants that are apart do not balance.
    for attempt in range(20):
        paths = [str(tmp_path / f"apart-{attempt}-{i}.vmcore") for i in range(HOSTS)]
        if not balance(dumped_apart(hosts.mounts, paths)).right:
            break
    else:
        pytest.fail("20 dumps of instants that are apart balance")
    by_clock(client, tmp_path)


def by_clock(client: Any, folder: Path) -> None:
    """What it promises is how far apart the instants are, and no more."""
    skews, errors, right = [], [], 0
    for _ in range(DUMPS):
        settings = FleetSettings(str(folder / "clock"), most_skew_s=60, late_s=60)
        _, manifest = fleet_dump(client, settings, allow_root=ROOT)
        assert (manifest.verdict, manifest.one_instant) == ("consistent", False), manifest
        assert manifest.skew and manifest.agreed_ns
        for one in manifest.members:
            assert one.taken and one.offset and one.instant_ns
            assert abs(one.offset.ns) <= one.offset.error_ns + 10_000_000, "they share a clock"
            assert one.instant_ns > manifest.agreed_ns - one.offset.error_ns - abs(one.offset.ns)
        skews.append(manifest.skew.ns)
        errors.append(manifest.skew.error_ns)
        right += balance([str(one.dump) for one in manifest.members]).right
    print(
        f"{DUMPS} dumps by clock: {right} balance; {figures('skew', skews)}; "
        f"{figures('error of the clocks', errors)}"
    )


def dumped_apart(mounts: list[Path], paths: list[str]) -> list[str]:
    """One after the other, some payments between them."""
    clients = [Client(str(one)) for one in mounts]
    try:
        for client, path in zip(clients, paths, strict=True):
            client.init(path, InitOptions(release_on_close=True))
        for client in clients:
            client.start()
            time.sleep(0.05)
        for client in clients:
            client.sweep()
            client.finish(300)
            client.release()
    finally:
        for client in clients:
            client.close()
    return paths
