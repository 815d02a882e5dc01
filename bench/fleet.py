#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fleet dump costs by the number of its members, which have no memory here: so it is the
time of Dask and of the coordinator.

    bench/fleet.py [--members N,N,...] [--workers N,N,...]

Two tables: many members on each of two workers, where a message to a worker is for all its
members; and one member on each worker, where each member is a message through the scheduler. The
workers are real ones, many in a process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from distributed import Client, LocalCluster, Worker
from simulated_members import SimulatedMembers

from livedumpfs.fleet.cluster import quiet
from livedumpfs.fleet.fleet_settings import FleetSettings
from livedumpfs.fleet.keeping import write_manifest
from livedumpfs.fleet.manifest import encode
from livedumpfs.fleet.taking import Taking

PROCESSES = 4
ROUNDS = 3
COLUMNS = ("members", "workers", "find", "INIT", "clocks", "HOLD", "ARM", "GO", "saved", "manifest")


@contextmanager
def few_workers(members: int) -> Iterator[Any]:
    """Two worker processes with half of the members each."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, protocol="tcp",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.register_plugin(SimulatedMembers(members // 2))
        yield client


@contextmanager
def many_workers(count: int) -> Iterator[Any]:
    """So many workers with a member each, in a few processes."""
    with ExitStack() as stack:
        cluster = stack.enter_context(
            LocalCluster(n_workers=0, dashboard_address=None, protocol="tcp", silence_logs=50)
        )
        client = stack.enter_context(Client(cluster))
        for i in range(PROCESSES):
            share = count // PROCESSES + (i < count % PROCESSES)
            if share:
                command = [
                    sys.executable,
                    __file__,
                    "--serve",
                    str(share),
                    cluster.scheduler_address,
                ]
                process = subprocess.Popen(command)
                stack.callback(process.wait)
                stack.callback(process.terminate)
        client.wait_for_workers(count, timeout=300)
        yield client


def serve(count: int, address: str) -> None:
    """Workers of one process, until it is ended."""
    quiet()

    async def run() -> None:
        workers = [
            Worker(
                address, nthreads=1, plugins=(SimulatedMembers(1),), dashboard=False,
                dashboard_address="127.0.0.1:0", memory_limit=0,
            )
            for _ in range(count)
        ]  # fmt: skip
        for start in range(0, count, 20):
            await asyncio.gather(*workers[start : start + 20])
        await workers[0].finished()

    asyncio.run(run())


async def one_dump(client: Any, to: str) -> tuple[int, dict[str, float]]:
    """Seconds of each phase, and bytes of the manifest."""
    taking = Taking(client, FleetSettings(to, how="barrier", deadline_s=60))
    times: dict[str, float] = {}

    async def timed(name: str, work: Any) -> None:
        begun = time.perf_counter()
        await work
        times[name] = time.perf_counter() - begun

    await timed("find", taking.find(allow_root=os.geteuid() == 0))
    await timed("INIT", taking.init())
    await timed("clocks", taking.compare_clocks())
    await timed("HOLD", taking.hold())
    await timed("ARM", taking.arm())
    await timed("GO", taking.go())
    await timed("saved", taking.save())
    begun = time.perf_counter()
    manifest = taking.manifest()
    write_manifest(to, manifest)
    times["manifest"] = time.perf_counter() - begun
    assert len(manifest.members) == len(taking.members)
    await taking.leave("measured")
    return len(encode(manifest)), times


def measure(client: Any, members: int, workers: int) -> str:
    """One row; medians."""
    with tempfile.TemporaryDirectory() as to:
        found = [client.sync(one_dump, client, to) for _ in range(ROUNDS)]
    row = [str(members), str(workers)]
    for name in COLUMNS[2:]:
        row.append(f"{statistics.median(times[name] for _, times in found) * 1000:.0f} ms")
    return " | ".join([*row, f"{found[0][0] / 1024:.0f} KiB"])


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",") if one]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=numbers, default=[10, 100, 300, 1000])
    parser.add_argument("--workers", type=numbers, default=[10, 50, 200, 500])
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(int(args.serve[0]), args.serve[1])
        return
    quiet()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} processors, load before {load:.1f}; medians of {ROUNDS} dumps")
    print(" | ".join([*COLUMNS, "its size"]))
    for count in args.members:
        with few_workers(count) as client:
            print(measure(client, count, 2), flush=True)
    for count in args.workers:
        with many_workers(count) as client:
            print(measure(client, count, count), flush=True)


if __name__ == "__main__":
    main()
