# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole fleet dump in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from livedumpfs.errors import LivedumpError
from livedumpfs.fleet.cluster_workers import ClusterWorkers, MemberHere, find_members
from livedumpfs.fleet.fleet_settings import FleetSettings
from livedumpfs.fleet.keeping import expect_writable, write_manifest
from livedumpfs.fleet.manifest import Manifest
from livedumpfs.fleet.taking import Taking, Watch

if TYPE_CHECKING:
    from distributed import Client


def fleet_dump(
    client: Client,
    settings: FleetSettings,
    *,
    members: Sequence[str] = (),
    allow_root: bool = False,
    watch: Watch = lambda _: None,
) -> tuple[str, Manifest]:
    """Dump all hosts of a cluster, or the members with these names. Where the manifest is, and what
    it says; whether the dump is consistent as a whole is its `verdict`.

    `client`: of any cluster whose workers can import livedumpfs; `allow_root`: workers may run as
    root; `watch` is called in the client's event loop. HostError: there is no fleet dump, and every
    machine runs; UsageError; TargetError: the dumps are there, and the manifest is not.
    """
    taking = Taking(client, settings)
    try:
        manifest = client.sync(_take, taking, members, allow_root, watch, asynchronous=False)
    except BaseException as error:
        why = str(error) if isinstance(error, LivedumpError) else "the fleet dump was interrupted"
        client.sync(taking.leave, why, asynchronous=False)
        raise
    client.sync(taking.leave, "the fleet dump is done", asynchronous=False)
    assert isinstance(manifest, Manifest)
    return write_manifest(settings.to, manifest), manifest


async def _take(taking: Taking, members: Sequence[str], allow_root: bool, watch: Watch) -> Manifest:
    await taking.find(members, allow_root=allow_root)
    await taking.init()  # which makes the store, too, where there is none
    await asyncio.to_thread(expect_writable, taking.settings.to)
    if taking.settings.how == "barrier":
        await taking.by_barrier()
    else:
        await taking.at_clock()
    await taking.save(watch)
    return taking.manifest()


def cluster_members(client: Client, *, allow_root: bool = False) -> list[MemberHere]:
    """The members of a cluster, by name. Errors as in fleet_dump."""
    found, _ = client.sync(
        find_members, ClusterWorkers(client), allow_root=allow_root, asynchronous=False
    )
    members: list[MemberHere] = found
    return members
