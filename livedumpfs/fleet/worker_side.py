# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs on the workers. Dask calls these coroutines on a worker's event loop, past its queue of
tasks: a worker that computes answers all the same. Nothing here waits on the loop itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from errno import ETIMEDOUT
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from livedumpfs.errors import HostError, LivedumpError
from livedumpfs.fleet.host_steps import open_host
from livedumpfs.fleet.landing import Land, open_landing, prepare_place
from livedumpfs.fleet.member import Member, News, cause
from livedumpfs.fleet.offsets import (
    REFERENCE,
    ClockFacts,
    Offset,
    RoundTrip,
    best,
    epoch_ns,
    kernel_facts,
    now_ns,
    this_computer,
)
from livedumpfs.fleet.one_thread import on_its_own
from livedumpfs.fleet.steps import Open
from livedumpfs.hosts.registry import mount_identity
from livedumpfs.hosts.usable import HostHere, usable_hosts

if TYPE_CHECKING:
    from distributed import Worker

EXTENSION: Final = "livedumpfs"
_LOOK_S: Final = 0.1
OPEN_S: Final = 20.0
"""Seconds for a host to answer when it is opened."""
HERE_S: Final = 10.0
"""Seconds for a host that was named to be looked at."""
LEAVE_S: Final = 5.0
"""Seconds for hosts to release, before the others are not kept waiting any more."""
_AT_ONCE: Final = 64
"""Clocks that are measured side by side."""
FleetStep = Literal["hold", "arm", "go", "start"]


@dataclass(frozen=True)
class WorkerFound:
    """One worker, as it says itself."""

    hosts: tuple[HostHere, ...]
    computer: str
    boot: str
    root: bool
    clock: ClockFacts | None
    silent: dict[str, str] = field(default_factory=dict)
    """Hosts that were named and cannot be used, and why."""


@dataclass(frozen=True)
class Reply:
    """The answer for one member: a value, or what went wrong."""

    value: Any = None
    errno: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Order:
    """INIT for the members of one worker."""

    fleet: str
    to: str
    form: str
    options: dict[str, Any]
    members: dict[str, tuple[str, bytes]]
    """Name -> livedump file of its host, and dump id."""
    within_s: float
    """How long INIT may take."""
    lease_s: float
    """After each answer: the members are released when the coordinator is not heard of for so
    long."""


@dataclass
class _Joined:
    """The members of one fleet dump here."""

    members: dict[str, Member] = field(default_factory=dict)
    ends: float = 0.0
    """time.monotonic() at which they are released, unless the coordinator is heard of."""


class WorkerFleet:
    """What a worker knows: which hosts are its, and the members that are being dumped."""

    def __init__(
        self,
        hosts: tuple[str, ...] = (),
        *,
        open_steps: Open = open_host,
        list_hosts: Callable[[Sequence[str]], Sequence[HostHere]] = usable_hosts,
        land: Land = open_landing,
    ) -> None:
        """`hosts`: names or paths of those that are meant; (): all that this user may use."""
        self._hosts = hosts
        self._open = open_steps
        self._list = list_hosts
        self._land = land
        self._joined: dict[str, _Joined] = {}
        self._lock = threading.Lock()
        self._watch: threading.Thread | None = None

    def looks(self) -> dict[str, Future[Sequence[HostHere]]]:
        """The hosts that were named, or all under the name "". Each is looked at on a thread of its
        own, since a host that hangs may keep it. RuntimeError: there can be no more threads."""
        wanted: dict[str, tuple[str, ...]] = {one: (one,) for one in self._hosts} or {"": ()}
        return {
            name: on_its_own("livedump-find", partial(self._list, named))
            for name, named in wanted.items()
        }

    # ------------------------------------------------------------------- members

    def join(self, order: Order) -> dict[str, Member | Exception]:
        """The members, with nothing opened yet. Asked again: the same."""
        with self._lock:
            joined = self._joined.setdefault(order.fleet, _Joined())
            joined.ends = time.monotonic() + order.within_s + order.lease_s
            if self._watch is None:
                self._watch = threading.Thread(
                    target=self._release_forgotten, name="livedump-lease", daemon=True
                )
                self._watch.start()
        return {name: self._member(joined, order, name) for name in order.members}

    def _member(self, joined: _Joined, order: Order, name: str) -> Member | Exception:
        if name not in joined.members:
            device, dump_id = order.members[name]
            identity = mount_identity(os.path.dirname(device))
            try:
                joined.members[name] = Member(
                    name,
                    dump_id,
                    lambda: self._open(device),
                    partial(self._land, order.to, f"{order.fleet}.{name}", order.form, identity),
                )
            except RuntimeError as error:
                return error
        return joined.members[name]

    def members(self, fleet: str, lease_s: float) -> dict[str, Member]:
        """Those of a fleet dump, which the coordinator was heard to want for so long. Empty: they
        were released, or never were."""
        with self._lock:
            joined = self._joined.get(fleet)
            if joined is None:
                return {}
            joined.ends = time.monotonic() + lease_s
            return dict(joined.members)

    def leave(self, fleet: str, why: str) -> list[Future[None]]:
        """Release all that a fleet dump still has here. What is waited for."""
        with self._lock:
            joined = self._joined.pop(fleet, _Joined())
        return _leave(joined.members.values(), why)

    def drop(self, fleet: str, names: Sequence[str], why: str) -> list[Future[None]]:
        """Release some members, without which a fleet dump goes on. As leave()."""
        with self._lock:
            members = self._joined.get(fleet, _Joined()).members
            dropped = [members.pop(name) for name in names if name in members]
        return _leave(dropped, why)

    def leave_all(self, why: str) -> None:
        """The worker ends."""
        for fleet in list(self._joined):
            self.leave(fleet, why)

    def _release_forgotten(self) -> None:
        """A coordinator or a scheduler that has died keeps no machine held or armed."""
        while True:
            time.sleep(_LOOK_S)
            now = time.monotonic()
            for fleet, joined in list(self._joined.items()):
                if joined.ends < now:
                    # Nothing may end this thread.
                    with contextlib.suppress(Exception):
                        self.leave(
                            fleet, "the coordinator of the fleet dump was not heard of any more"
                        )


def _leave(members: Iterable[Member], why: str) -> list[Future[None]]:
    """Each on a thread of its own, if there can be one: one that hangs must not keep the others."""
    doing = []
    for one in members:
        with contextlib.suppress(RuntimeError):
            doing.append(on_its_own("livedump-leave", partial(one.leave, why)))
            continue
        one.leave(why)
    return doing


async def _left(doing: Sequence[Future[None]]) -> None:
    """Until all are released; not for those that hang."""
    if doing:
        await asyncio.wait(map(asyncio.wrap_future, doing), timeout=LEAVE_S)


def fleet_of(worker: Worker) -> WorkerFleet:
    """What that worker knows."""
    known = worker.extensions.setdefault(EXTENSION, None) or WorkerFleet()
    worker.extensions[EXTENSION] = known
    assert isinstance(known, WorkerFleet)
    return known


async def _replies(
    doing: Mapping[str, Awaitable[Any] | Exception], within_s: float
) -> dict[str, Reply]:
    """Wait for all of them, each by itself, and for none longer than that. One that takes longer
    goes on."""

    async def one(work: Awaitable[Any] | Exception) -> Reply:
        try:
            if isinstance(work, Exception):
                raise work
            return Reply(await asyncio.wait_for(asyncio.shield(work), within_s))
        except TimeoutError as error:
            if isinstance(error, LivedumpError):
                return Reply(None, *cause(error))
            return Reply(None, ETIMEDOUT, f"its host did not answer within {within_s:.3g} s")
        except Exception as error:
            return Reply(None, *cause(error))

    found = await asyncio.gather(*map(one, doing.values()))
    return dict(zip(doing, found, strict=True))


# ---------------------------------------------------------------------- called by the coordinator


async def find(dask_worker: Worker) -> WorkerFound:
    """The hosts that this worker may control. HostError."""
    looks = fleet_of(dask_worker).looks()
    found = await _replies({name: asyncio.wrap_future(one) for name, one in looks.items()}, HERE_S)
    silent = {name: one.problem for name, one in found.items() if one.problem}
    if "" in silent:
        raise HostError(silent[""])
    hosts = tuple(host for one in found.values() for host in one.value or ())
    facts = None
    with contextlib.suppress(OSError):
        facts = kernel_facts()
    return WorkerFound(
        hosts, socket.gethostname(), this_computer(), os.geteuid() == 0, facts, silent
    )


async def prepare(to: str, dask_worker: Worker) -> Reply:
    """Make what all dumps need at that place."""
    del dask_worker
    return (await _replies({"": asyncio.to_thread(prepare_place, to)}, float("inf")))[""]


async def join(orders: dict[str, Order], dask_worker: Worker) -> dict[str, Reply]:
    """INIT of all members here, side by side. The value of a reply is the size of the memory."""
    order, fleet = orders[dask_worker.address], fleet_of(dask_worker)
    members = fleet.join(order)
    opened = await _replies(
        {name: _submit(one, lambda member: member.open()) for name, one in members.items()},
        min(OPEN_S, order.within_s),
    )
    able = {name: one for name, one in members.items() if not opened[name].problem}
    replies = await _replies(
        {
            name: _submit(one, lambda member: member.init(order.options))
            for name, one in able.items()
        },
        order.within_s,
    )
    fleet.members(order.fleet, order.lease_s)
    return opened | replies


def _submit(
    member: Member | Exception, step: Callable[[Member], Any]
) -> Awaitable[Any] | Exception:
    if isinstance(member, Exception):
        return member
    try:
        return asyncio.wrap_future(member.submit(lambda: step(member)))
    except LivedumpError as error:
        return error


async def step(
    fleet: str,
    what: FleetStep,
    values: dict[str, tuple[float, ...]],
    within_s: float,
    lease_s: float,
    dask_worker: Worker,
) -> dict[str, Reply]:
    """One step of all members here that are in `values`, side by side. The value of the reply to
    GO and START is a Taken."""
    here = fleet_of(dask_worker)
    members = here.members(fleet, within_s + lease_s)
    doing: dict[str, Awaitable[Any] | Exception] = {}
    for name, member in members.items():
        if name in values:
            doing[name] = _submit(member, _called(what, values[name]))
    replies = await _replies(doing, within_s)
    here.members(fleet, lease_s)
    return replies


def _called(what: FleetStep, values: tuple[float, ...]) -> Callable[[Member], Any]:
    if what == "hold":
        return lambda member: member.hold(values[0])
    if what == "arm":
        return lambda member: member.arm()
    if what == "go":
        return lambda member: member.go()
    return lambda member: member.start(int(values[0]), int(values[1]))


async def poll(fleet: str, lease_s: float, dask_worker: Worker) -> dict[str, News]:
    """How the members here are; it also says that the coordinator lives."""
    members = fleet_of(dask_worker).members(fleet, lease_s)
    return {name: one.seen() for name, one in members.items()}


async def leave(fleet: str, why: str, dask_worker: Worker) -> None:
    """Release what the fleet dump still has here."""
    await _left(fleet_of(dask_worker).leave(fleet, why))


async def drop(fleet: str, names: tuple[str, ...], why: str, dask_worker: Worker) -> None:
    """Release those that are here."""
    await _left(fleet_of(dask_worker).drop(fleet, names, why))


# ------------------------------------------------------------------------------ clocks


async def own_clock() -> tuple[int, int, int]:
    """CLOCK_REALTIME in ns, when asked and when answered; and what it shows more than
    CLOCK_MONOTONIC."""
    received = now_ns()
    epoch = epoch_ns()
    return received, now_ns(), epoch


async def measure(
    others: tuple[str, ...], rounds: int, dask_worker: Worker
) -> tuple[dict[str, Offset], int]:
    """The clocks of other workers beside that of this one, and this one's now. Workers have a
    connection of their own that stays open, so a round trip has no handshake in it. Without an
    answer a worker is left out."""
    gate = asyncio.Semaphore(_AT_ONCE)
    own = msgspec.structs.replace(REFERENCE, epoch_ns=epoch_ns())
    found: dict[str, Offset] = {dask_worker.address: own}

    async def one(address: str) -> None:
        from distributed.protocol.pickle import dumps

        question = dumps(own_clock)
        trips = []
        async with gate:
            with contextlib.suppress(Exception):
                for _ in range(rounds):
                    sent = now_ns()
                    said = await dask_worker.rpc(address).run(function=question)
                    back = now_ns()
                    received, answered, epoch = said["result"]
                    trips.append(RoundTrip(sent, received, answered, back, epoch))
        if trips:
            found[address] = best(trips)

    await asyncio.gather(*(one(address) for address in others if address != dask_worker.address))
    return found, now_ns()
