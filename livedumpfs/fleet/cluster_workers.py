# SPDX-License-Identifier: GPL-2.0-or-later
"""The workers of a fleet, as the coordinator sees them: which members they have, and how they are
called. A call goes past the queues of tasks, and comes back for each worker by itself."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from livedumpfs.errors import HostError, LivedumpError, UsageError
from livedumpfs.fleet.offsets import ClockFacts, Offset
from livedumpfs.fleet.worker_side import WorkerFound, find, measure
from livedumpfs.hosts.usable import HostHere

if TYPE_CHECKING:
    from distributed import Client

FIND_S: Final = 30.0
"""Seconds for a worker to say which hosts it has."""
GONE_S: Final = 3.0
"""Seconds without a connection after which the scheduler counts as gone."""
AGAIN_S: Final = 2.0
"""Seconds for a worker that is asked again, alone."""
_LOOK_S: Final = 0.5
_GROUPS: Final = 32
"""Messages of one call through the scheduler; with more workers, several share one."""
ROUNDS: Final = 8
"""Round trips to each clock; half of them where there are more than MANY."""
MANY: Final = 100
CLOCK_S: Final = 0.1
"""Seconds more for each clock: one worker asks them all."""


@dataclass(frozen=True)
class MemberHere:
    """A member: a host, and the worker that controls it."""

    name: str
    worker: str
    """The worker's address."""
    host: HostHere
    computer: str
    boot: str
    clock: ClockFacts | None

    def __str__(self) -> str:
        return f"{self.name} (worker {self.worker})"


class SchedulerGone(HostError):
    """The scheduler does not answer any more."""


@dataclass(frozen=True)
class Lost:
    """A worker that gave no answer, or one host of it."""

    worker: str
    why: str
    host: str = ""


@dataclass(frozen=True)
class Said:
    """What a worker answered."""

    worker: str
    value: Any


class ClusterWorkers:
    """Calls coroutines of worker_side on workers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.slowest_s = 0.0
        """The longest that a call took to come back, of those that were timed."""

    async def each(
        self,
        function: Callable[..., Awaitable[Any]],
        *values: Any,
        workers: Sequence[str],
        within_s: float,
    ) -> AsyncGenerator[Said | Lost, None]:
        """Call it on each of these workers; their answers in the order in which they come.
        SchedulerGone."""
        count = min(_GROUPS, len(workers))
        groups = [list(workers[i::count]) for i in range(count)]
        tasks = [
            asyncio.ensure_future(self._group(function, values, group, within_s))
            for group in groups
        ]
        try:
            for done in asyncio.as_completed(tasks):
                for answer in await done:
                    yield answer
        finally:
            for task in tasks:
                task.cancel()

    async def _group(
        self,
        function: Callable[..., Awaitable[Any]],
        values: tuple[Any, ...],
        group: list[str],
        within_s: float,
    ) -> list[Said | Lost]:
        call = self.client.run(function, *values, workers=group, on_error="return")
        try:
            found = await self._of_scheduler(call, within_s)
        except TimeoutError:
            if len(group) == 1:
                return [Lost(group[0], f"it did not answer within {within_s:.3g} s")]
            # One that hangs keeps the answers of the others. Every call may be made twice.
            alone = (self._group(function, values, [one], AGAIN_S) for one in group)
            return [answer for found in await asyncio.gather(*alone) for answer in found]
        return [_answer(one, found.get(one)) for one in group]

    async def _of_scheduler(self, call: Awaitable[Any], within_s: float) -> Any:
        """What the scheduler answers. TimeoutError. SchedulerGone, also when the client has no
        connection for GONE_S: Dask itself would try for longer."""
        task = asyncio.ensure_future(call)
        begun = connected = time.monotonic()
        try:
            while not task.done():
                now = time.monotonic()
                if self.client.status == "running":
                    connected = now
                elif now - connected > GONE_S:
                    raise _scheduler_gone(self.client, ConnectionError("connection lost"))
                if now - begun >= within_s:
                    raise TimeoutError
                await asyncio.wait({task}, timeout=min(_LOOK_S, begun + within_s - now))
            return task.result()
        except (SchedulerGone, TimeoutError):
            raise
        except Exception as error:
            raise _scheduler_gone(self.client, error) from error
        finally:
            task.cancel()

    async def all(
        self,
        function: Callable[..., Awaitable[Any]],
        *values: Any,
        workers: Sequence[str],
        within_s: float,
    ) -> list[Said | Lost]:
        """As `each`, when all have answered; timed."""
        begun = time.monotonic()
        calls = self.each(function, *values, workers=workers, within_s=within_s)
        found = [answer async for answer in calls]
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        return found

    async def addresses(self) -> list[str]:
        """Of all workers. SchedulerGone."""
        try:
            found = await self._of_scheduler(self.client.scheduler.ncores(), FIND_S)
        except TimeoutError as error:
            raise _scheduler_gone(self.client, error) from error
        return list(found)

    async def clocks(
        self, workers: Sequence[str], within_s: float
    ) -> tuple[str, dict[str, Offset], int]:
        """The worker whose clock is the reference; each clock beside it; and the reference clock's
        time, which was right when the answer was sent. HostError: the reference has gone."""
        reference = min(workers)
        rounds = ROUNDS if len(workers) <= MANY else ROUNDS // 2
        within_s += len(workers) * CLOCK_S
        (said,) = await self.all(
            measure, tuple(workers), rounds, workers=[reference], within_s=within_s
        )
        if isinstance(said, Lost):
            raise HostError(f"the clocks cannot be compared: worker {reference}: {said.why}")
        found, now = said.value
        return reference, found, now


def _answer(worker: str, value: Any) -> Said | Lost:
    if value is None or not isinstance(value, BaseException):
        return Said(worker, value)
    if isinstance(value, LivedumpError | ImportError):
        return Lost(worker, str(value))
    if isinstance(value, OSError | TimeoutError):
        return Lost(worker, f"it has gone ({' '.join(str(value).split()) or 'no answer'})")
    return Lost(worker, f"{type(value).__name__}: {value}")


def _scheduler_gone(client: Client, error: Exception) -> SchedulerGone:
    where = client.scheduler.address if client.scheduler is not None else "of the cluster"
    cause = " ".join(str(error).split()) or type(error).__name__
    return SchedulerGone(f"the scheduler {where} does not answer: {cause}", errno=errno.ENOTCONN)


# ----------------------------------------------------------------------------- members


async def find_members(
    workers: ClusterWorkers, wanted: Sequence[str] = (), *, allow_root: bool = False
) -> tuple[list[MemberHere], list[Lost]]:
    """The members of a cluster, by name, and workers and hosts that gave no answer. `wanted`: names
    of members; (): all. A host that several workers may control is given to the one that has the
    fewest. UsageError: a name that no member has; a worker runs as root and `allow_root` is not
    set. HostError: there are none."""
    addresses = await workers.addresses()
    if not addresses:
        raise HostError("the cluster has no workers", hint="start one with `livedump fleet worker`")
    answers = await workers.all(find, workers=addresses, within_s=FIND_S)
    found = {one.worker: one.value for one in answers if isinstance(one, Said)}
    lost = [one for one in answers if isinstance(one, Lost)]
    for worker, one in found.items():
        lost += [Lost(worker, why, host) for host, why in one.silent.items()]
    refuse_root([name for name, one in found.items() if one.root and one.hosts], allowed=allow_root)
    members = assign(found)
    if wanted:
        unknown = [name for name in wanted if name not in members]
        if unknown:
            known = ", ".join(members) or "none"
            raise UsageError(f"no member is called {', '.join(unknown)}", hint=f"there are {known}")
        members = {name: members[name] for name in wanted}
    if not members:
        raise HostError(
            f"none of the {len(addresses)} workers has a host that it may control",
            errno=errno.ENOENT,
            hint="`livedump status` on its computer, as its user, says which hosts there are",
        )
    return list(members.values()), lost


def refuse_root(workers: Sequence[str], *, allowed: bool) -> None:
    """UsageError: a worker runs as root. What may send tasks to a cluster may run anything on its
    workers."""
    if workers and not allowed:
        raise UsageError(
            f"worker {workers[0]} runs as root",
            hint="start it as a user in the <group> of the host; or allow it by <allow_root>",
        )


def assign(found: Mapping[str, WorkerFound]) -> dict[str, MemberHere]:
    """Each host to one worker, by name of the member: "NAME@COMPUTER", numbered where two have the
    same."""
    able: dict[tuple[str, str], list[str]] = {}
    for worker in sorted(found):
        for host in found[worker].hosts:
            able.setdefault((found[worker].boot, host.mount_id), []).append(worker)
    load = dict.fromkeys(found, 0)
    members: dict[str, MemberHere] = {}
    for (_, mount), workers in sorted(able.items(), key=lambda item: (len(item[1]), item[0])):
        worker = min(workers, key=lambda one: (load[one], one))
        load[worker] += 1
        known = found[worker]
        host = next(one for one in known.hosts if one.mount_id == mount)
        name = _unused(f"{host.name}@{known.computer}", members)
        members[name] = MemberHere(name, worker, host, known.computer, known.boot, known.clock)
    return dict(sorted(members.items()))


def _unused(name: str, members: Mapping[str, MemberHere]) -> str:
    number = 2
    new = name
    while new in members:
        new, number = f"{name}-{number}", number + 1
    return new
