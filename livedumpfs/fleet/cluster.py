# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster that is started by hand: a scheduler, and a worker beside each host. Any other that
Dask can start does as well."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from livedumpfs.errors import HostError
from livedumpfs.fleet.cluster_workers import refuse_root

if TYPE_CHECKING:
    from distributed import Client, Security

CONNECT_S: Final = 20.0
_NO_PAGES: Final = "127.0.0.1:0"
_OURS: Final = {
    # A call to all workers is not to begin with a handshake for each.
    "distributed.scheduler.reuse-broadcast-comm": True,
    # Its web pages have no TLS, and tell what is going on.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
_CLOSE_S: Final = 10.0
"""Seconds for a worker to end in good order, before it ends without its threads: a host that hangs
keeps the one that waits for it."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def connect(address: str, security: Security | None) -> Client:
    """A client of the scheduler there. HostError: it does not answer, or not with these
    credentials."""
    from distributed import Client

    quiet()
    try:
        return Client(address, security=security, timeout=CONNECT_S, name="livedump")
    except (OSError, TimeoutError, ValueError) as error:
        cause = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise HostError(f"cannot reach the scheduler {address}: {cause}") from error


def quiet(level: int = logging.CRITICAL) -> None:
    """A command says in one sentence what Dask's log says in many."""
    logging.getLogger("distributed").setLevel(level)
    # Its coroutines log what their exceptions say as well.
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)


def serve_scheduler(
    host: str | None, port: int, security: Security | None, on_ready: Callable[[str], None]
) -> None:
    """Until a signal. `on_ready` gets its address. HostError: the address cannot be used."""
    import dask
    from distributed import Scheduler

    quiet(logging.WARNING)

    async def run(ended: asyncio.Event) -> None:
        with dask.config.set(_OURS):
            protocol = "tls" if security else "tcp"
            try:
                scheduler = await Scheduler(
                    host=host,
                    port=port,
                    protocol=protocol,
                    security=security,
                    dashboard=False,
                    dashboard_address=_NO_PAGES,
                )
            except (OSError, RuntimeError) as error:
                # Dask wraps what the address has been refused for.
                why = error.__cause__ or error
                code = why.errno or 0 if isinstance(why, OSError) else 0
                where = f"{host or ''}:{port}"
                raise HostError(f"cannot listen at {where}: {why}", errno=code) from error
            on_ready(scheduler.address)
            await _first(ended.wait(), scheduler.finished())
            await scheduler.close(reason="livedump fleet scheduler ends")

    _until_signal(run)


def serve_worker(
    address: str,
    hosts: tuple[str, ...],
    security: Security | None,
    on_ready: Callable[[str], None],
    *,
    name: str | None = None,
    threads: int = 1,
    allow_root: bool = False,
    connect_s: float = 300.0,
) -> None:
    """Until a signal, or until the scheduler has gone. `hosts`: those that it may control; (): all
    that its user may. UsageError: this is root, and `allow_root` is not set. HostError: a host is
    not there, or the scheduler does not answer for `connect_s`."""
    import dask
    from distributed import Worker

    from livedumpfs.fleet.plugin import FleetPlugin
    from livedumpfs.hosts.usable import usable_hosts

    if os.geteuid() == 0:
        refuse_root(["of this command"], allowed=allow_root)
    quiet(logging.WARNING)
    found = usable_hosts(hosts)
    resources = {f"livedump:{one.name}": 1.0 for one in found}

    async def run(ended: asyncio.Event) -> None:
        dask.config.set(_OURS)
        worker: Any = Worker(
            address, name=name, nthreads=threads, security=security, resources=resources,
            plugins=(FleetPlugin(*hosts),), dashboard=False, dashboard_address=_NO_PAGES,
            death_timeout=connect_s,
        )  # fmt: skip
        try:
            await worker
        except (OSError, TimeoutError) as error:
            raise HostError(f"cannot reach the scheduler {address}: {error}") from error
        on_ready(worker.address)
        await _first(ended.wait(), worker.finished())
        end_within(_CLOSE_S, 0 if ended.is_set() else 1)
        if not ended.is_set():
            raise HostError(f"the scheduler {address} has gone, and with it what this worker began")
        with suppress(Exception):
            await worker.close(reason="livedump fleet worker ends")

    _until_signal(run)


def end_within(seconds: float, code: int) -> None:
    """This process ends with that code if it has not ended by then. Its files are closed, so the
    hosts that answer release what it began."""

    def end() -> None:
        time.sleep(seconds)
        os._exit(code)

    threading.Thread(target=end, name="livedump-end", daemon=True).start()


async def _first(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(one) for one in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _until_signal(run: Callable[[asyncio.Event], Any]) -> None:
    """Run it with an event that the first signal sets."""

    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, ended.set)
        await run(ended)

    asyncio.run(main())
