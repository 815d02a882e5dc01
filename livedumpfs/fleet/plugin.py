# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin that tells a Dask worker which hosts are its. A worker without it has all that its
user may use."""

from __future__ import annotations

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from livedumpfs.fleet.worker_side import EXTENSION, WorkerFleet


class FleetPlugin(WorkerPlugin):  # type: ignore[misc]
    """For `Worker(plugins=[FleetPlugin(...)])` or `client.register_plugin`."""

    name = "livedumpfs"

    def __init__(self, *hosts: str) -> None:
        """Names, paths or pids of hosts; none: all that the worker may use."""
        self.hosts = hosts

    def setup(self, worker: Worker) -> None:
        """Called by the worker."""
        worker.extensions[EXTENSION] = WorkerFleet(self.hosts)

    def teardown(self, worker: Worker) -> None:
        """The worker ends: what it began is released."""
        known = worker.extensions.get(EXTENSION)
        if isinstance(known, WorkerFleet):
            known.leave_all("the worker has ended")
