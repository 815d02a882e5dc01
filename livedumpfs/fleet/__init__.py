# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of many hosts that belong together, on the workers of a Dask cluster.

::

    from distributed import Client
    from livedumpfs.fleet import FleetSettings, fleet_dump

    with Client("tls://scheduler:8786", security=...) as client:
        path, manifest = fleet_dump(client, FleetSettings("/backup", how="barrier"))

Needs `pip install 'livedumpfs[fleet]'`. Any cluster will do whose workers can import livedumpfs and
may use hosts on their computers; see docs/fleet.md.
"""

from __future__ import annotations

from livedumpfs.fleet.fleet_map import fleet_map
from livedumpfs.fleet.fleet_settings import FleetSettings
from livedumpfs.fleet.keeping import list_manifests, read_manifest
from livedumpfs.fleet.manifest import SUFFIX, Manifest, MemberRecord, judge_again
from livedumpfs.fleet.mapping import Mapped
from livedumpfs.fleet.verifying import problems_of
from livedumpfs.fleet.whole import cluster_members, fleet_dump

__all__ = [
    "SUFFIX",
    "FleetSettings",
    "Manifest",
    "Mapped",
    "MemberRecord",
    "cluster_members",
    "fleet_dump",
    "fleet_map",
    "judge_again",
    "list_manifests",
    "problems_of",
    "read_manifest",
]
