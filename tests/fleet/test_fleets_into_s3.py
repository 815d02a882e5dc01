# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet dump into an object store: a real S3 server on loopback, that stays and that goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from livedumpfs.fleet import FleetSettings, fleet_dump, list_manifests, read_manifest
from livedumpfs.fleet.fleet_map import map_shared
from tests.fleet.clusters import AS_ROOT, long
from tests.fleet.exchange import balance

ROOT = bool(AS_ROOT)


def test_a_fleet_dump_in_s3(exchangers: Callable[..., Any], cluster: Any, s3: Any) -> None:
    hosts, client = exchangers(2), cluster(2)
    store = f"store:{s3.place()}"
    settings = FleetSettings(store, how="barrier", deadline_s=30, lease_s=60)
    name, manifest = fleet_dump(client, settings, allow_root=ROOT)
    assert name == f"{store}#{manifest.id}" and read_manifest(name) == manifest
    assert [one for one, _ in list_manifests(store)] == [name]
    assert manifest.verdict == "consistent", manifest
    assert balance([str(one.dump) for one in manifest.members]).right
    assert len({one.checksum for one in manifest.members}) == 2
    shared = map_shared(client, manifest, allow_root=ROOT)
    assert shared.rows[-1]["pages"] == 2 * 1536 and not shared.problems
    hosts.runs_on()


@long
@pytest.mark.parametrize("how", ["bucket", "server"])
def test_an_object_store_that_goes(
    how: str, exchangers: Callable[..., Any], cluster: Any, s3: Any
) -> None:
    """While it is written to: there is no fleet dump, the sentence says of what, and the machines
    run."""
    hosts, client = exchangers(2), cluster(2)
    options = {"sweep_rate": 1 << 20}
    settings = FleetSettings(
        f"store:{s3.place()}", how="barrier", deadline_s=30, lease_s=60, options=options
    )
    gone = threading.Event()
    last: dict[str, Any] = {}

    def watch(news: Mapping[str, Any]) -> None:
        last.update(news)
        if not gone.is_set() and any(one.saved.done > 1 << 20 for one in news.values()):
            gone.set()
            threading.Thread(
                target=s3.remove_bucket if how == "bucket" else lambda: s3.fails("cut")
            ).start()

    with pytest.raises(OSError, match=rf"s3://{s3.bucket}"):
        fleet_dump(client, settings, allow_root=ROOT, watch=watch)
    assert gone.is_set()
    for one in last.values():
        assert one.outcome and one.outcome.verdict == "incomplete", last
        assert s3.bucket in (one.outcome.reason or ""), last
    hosts.runs_on()
