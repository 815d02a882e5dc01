# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet dump from INIT to its manifest, as its coordinator runs it: the process that has the Dask
client.

Whatever ends it - an error, a signal, its death - no machine stays held or armed: it tells the
workers to leave, and those that it cannot tell do so when its lease is over.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from livedumpfs import __version__
from livedumpfs.errors import HostError, LivedumpError
from livedumpfs.fleet import worker_side
from livedumpfs.fleet.cluster_workers import (
    AGAIN_S,
    ClusterWorkers,
    Lost,
    MemberHere,
    Said,
    find_members,
)
from livedumpfs.fleet.fleet_settings import FleetSettings
from livedumpfs.fleet.manifest import (
    LeftOut,
    Manifest,
    MemberRecord,
    Taken,
    judge_fleet,
    skew_of,
)
from livedumpfs.fleet.member import MemberOutcome, News
from livedumpfs.fleet.offsets import Offset, compared_again, corrected
from livedumpfs.fleet.steps import Saved
from livedumpfs.fleet.worker_side import FleetStep, Order, Reply

if TYPE_CHECKING:
    from distributed import Client

POLL_S: Final = 0.25
ANSWER_S: Final = 10.0
"""Seconds for a worker to answer what it need not think about."""
INIT_S: Final = 300.0
"""The host has a deadline of its own, by the size of its memory; this is for one that hangs."""
LEAST_MARGIN_S: Final = 0.5
"""From now to the agreed time, at the least."""
ID_SIZE: Final = 16


Watch = Callable[[Mapping[str, News]], None]
"""Gets how all members are, some times a second, by their names."""


class Taking:
    """One fleet dump."""

    def __init__(self, client: Client, settings: FleetSettings, fleet: str | None = None) -> None:
        """`fleet`: its id; None: a new one. UsageError."""
        settings.check()
        self.id = fleet or uuid.uuid4().hex[:16]
        self.settings = settings
        self.workers = ClusterWorkers(client)
        self.members: dict[str, MemberHere] = {}
        """Those that are still part of it."""
        self.left_out: list[LeftOut] = []
        self.news: dict[str, News] = {}
        self._everyone: list[str] = []
        self._dropped: dict[str, str] = {}
        """Names and workers of members without which it goes on, and which still have something."""
        self._sizes: dict[str, int] = {}
        self._taken: dict[str, Taken] = {}
        self._offsets: dict[str, Offset] = {}
        self._clocks: dict[str, Offset] = {}
        """By the address of their workers."""
        self._reference = ""
        self._agreed_ns: int | None = None

    # ------------------------------------------------------------------------ phases

    async def find(self, wanted: Sequence[str] = (), *, allow_root: bool = False) -> None:
        """Find the members. Errors as in find_members; HostError: a worker gives no answer, and
        this is not best effort."""
        members, lost = await find_members(self.workers, wanted, allow_root=allow_root)
        if lost and not self.settings.best_effort:
            what = (
                f"host {lost[0].host} cannot be used" if lost[0].host else "its hosts are unknown"
            )
            raise HostError(f"worker {lost[0].worker}: {what}: {lost[0].why}")
        self.left_out += [
            LeftOut(
                f"host {one.host} of worker {one.worker}" if one.host else f"worker {one.worker}",
                one.why,
            )
            for one in lost
        ]
        self.members = {one.name: one for one in members}
        self._everyone = self._addresses()

    async def init(self) -> None:
        """INIT everywhere. HostError: one cannot, and this is not best effort; nothing was armed,
        and all are released."""
        await self._prepare()
        orders: dict[str, Order] = {}
        form = str(self.settings.options.get("format") or "elf")
        for one in self.members.values():
            order = orders.setdefault(
                one.worker,
                Order(
                    self.id,
                    self.settings.to,
                    form,
                    self.settings.options,
                    {},
                    INIT_S,
                    self.settings.lease_s,
                ),
            )
            order.members[one.name] = (one.host.device, self.dump_id(one.name))
        replies = await self._ask(worker_side.join, orders, within_s=INIT_S + ANSWER_S)
        self._sizes = {name: reply.value for name, reply in replies.items() if not reply.problem}
        self._sort_out("INIT", replies)

    async def _prepare(self) -> None:
        """One worker of each computer makes the store if it is missing; of one that is not in the
        file system, one worker alone. Why it cannot be made is said by INIT."""
        places = {one.computer: one.worker for one in reversed(self.members.values())}
        workers = sorted(places.values())[: 1 if "://" in self.settings.to else None]
        await self.workers.all(
            worker_side.prepare, self.settings.to, workers=workers, within_s=INIT_S
        )

    async def compare_clocks(self) -> int:
        """Measure the clocks. The reference clock's time. HostError."""
        async with self._heard_of():
            found = await self.workers.clocks(self._addresses(), ANSWER_S)
        self._reference, self._clocks, now = found
        self._know_offsets()
        return now

    def _know_offsets(self) -> None:
        self._offsets = {
            name: self._clocks[one.worker]
            for name, one in self.members.items()
            if one.worker in self._clocks
        }

    async def _compare_clocks_again(self) -> None:
        """What was measured before the instants must hold at them."""
        with suppress(LivedumpError):  # the reference has gone: its dump is incomplete
            async with self._heard_of():
                # The least of all, as before, also if its member is left out by now.
                workers = sorted({*self._addresses(), self._reference})
                _, second, _ = await self.workers.clocks(workers, ANSWER_S)
            self._clocks = compared_again(self._clocks, second, self._reference)
            self._know_offsets()

    def dump_id(self, name: str) -> bytes:
        """The dump id of a member: the same whenever it is asked for."""
        return hashlib.sha256(f"{self.id}/{name}".encode()).digest()[:ID_SIZE]

    async def at_clock(self) -> None:
        """START of all at one agreed time. HostError: one could not, and this is not best
        effort."""
        reference_now = await self.compare_clocks()
        replies = {
            name: Reply(None, 0, "its clock could not be measured")
            for name in self.members
            if name not in self._offsets
        }
        # The answer with the reference clock's time was under way for a while, too; no longer than
        # the slowest call.
        margin = 4 * self.workers.slowest_s + LEAST_MARGIN_S
        self._agreed_ns = reference_now + int(margin * 1e9)
        late = int(self.settings.late_s * 1e9)
        values = {
            name: (corrected(self._agreed_ns, offset), late)
            for name, offset in self._offsets.items()
        }
        found = await self._step("start", values, within_s=margin + self.settings.late_s + INIT_S)
        self._keep(replies | found)
        self._sort_out("START", replies | found)
        await self._compare_clocks_again()

    async def by_barrier(self) -> None:
        """All are held, then all armed, then all let go. A member whose hold was over before is no
        part of the barrier. HostError: one could not be held or armed, and this is not best
        effort."""
        with suppress(LivedumpError):  # the barrier needs none; the manifest says what is known
            await self.compare_clocks()
        await self.hold()
        await self.arm()
        await self.go()

    async def hold(self) -> None:
        """Stop all. HostError: one does not stop, and this is not best effort."""
        seconds = self.settings.deadline_s
        await self._together("hold", dict.fromkeys(self.members, (seconds,)), 0.5)

    async def arm(self) -> None:
        """The instant of all. HostError as of hold()."""
        await self._together("arm", dict.fromkeys(self.members, ()), 0.25)

    async def go(self) -> None:
        """Let all run. What the others have is whole without the answer of one."""
        replies = await self._step("go", dict.fromkeys(self.members, ()), within_s=ANSWER_S)
        self._keep(replies)
        for name, reply in replies.items():
            if reply.problem:
                self._lose(name, f"GO: {reply.problem}")

    async def _together(
        self, what: FleetStep, values: Mapping[str, tuple[float, ...]], share: float
    ) -> None:
        """A step that the others wait for. The first that fails ends the wait; if this is best
        effort nothing does before a `share` of the deadline, and the rest is for the next steps."""
        patient = self.settings.best_effort
        within = self.settings.deadline_s * (share if patient else 1)
        replies = await self._step(what, values, within_s=within, first_failure=not patient)
        self._sort_out(what.upper(), replies)

    async def save(self, watch: Watch = lambda _: None) -> None:
        """Wait until each dump is sealed, and has arrived. What becomes of a member whose worker
        dies is in its news; SchedulerGone."""
        await self._drop()
        while waiting := [name for name in self.members if not self._outcome(name)]:
            await asyncio.sleep(POLL_S)
            alive = set(await self.workers.addresses())
            for name in waiting:
                if self.members[name].worker not in alive:
                    self._lose(name, "its worker has died")
            await self._poll(waiting, alive)
            watch(dict(self.news))

    async def _drop(self) -> None:
        """Release members that are left out; while others stand there is no time for it."""
        workers = sorted(set(self._dropped.values()))
        if workers:
            await self.workers.all(
                worker_side.drop, self.id, tuple(self._dropped), "it was left out",
                workers=workers, within_s=AGAIN_S,
            )  # fmt: skip
        self._dropped.clear()

    async def _poll(self, waiting: Sequence[str], alive: set[str]) -> None:
        workers = sorted({self.members[name].worker for name in waiting} & alive)
        if not workers:
            return
        answers = await self.workers.all(
            worker_side.poll,
            self.id,
            self.settings.lease_s,
            workers=workers,
            within_s=min(ANSWER_S, self.settings.lease_s / 2),
        )
        for answer in answers:
            for name in waiting:
                if self.members[name].worker != answer.worker:
                    continue
                if isinstance(answer, Lost):
                    self._lose(name, f"its worker is lost: {answer.why}")
                elif name in answer.value:
                    self.news[name] = answer.value[name]
                else:
                    self._lose(name, "its worker has released it")

    def _outcome(self, name: str) -> MemberOutcome | None:
        return self.news[name].outcome if name in self.news else None

    def _lose(self, name: str, why: str) -> None:
        """Nothing will be heard of it any more."""
        saved = self.news[name].saved if name in self.news else None
        outcome = MemberOutcome("incomplete", f"{why} ({self.members[name].worker})", None, None)
        self.news[name] = News(saved or Saved(0, self._sizes.get(name, 0), 0, False), outcome)

    async def leave(self, why: str) -> None:
        """Tell all workers to release what they have of it. Never fails."""
        if not self._everyone:
            return
        with suppress(LivedumpError):  # else they release it when the lease is over
            await self.workers.all(
                worker_side.leave, self.id, why, workers=self._everyone, within_s=ANSWER_S
            )

    # ---------------------------------------------------------------------- asking

    def _addresses(self) -> list[str]:
        return sorted({one.worker for one in self.members.values()})

    async def _step(
        self,
        what: FleetStep,
        values: Mapping[str, tuple[float, ...]],
        *,
        within_s: float,
        first_failure: bool = False,
    ) -> dict[str, Reply]:
        return await self._ask(
            worker_side.step, self.id, what, dict(values), within_s, self.settings.lease_s,
            within_s=within_s + min(1.0, within_s / 2), first_failure=first_failure,
        )  # fmt: skip

    async def _ask(
        self, function: Any, *values: Any, within_s: float, first_failure: bool = False
    ) -> dict[str, Reply]:
        """The replies of all members that are left; that of one whose worker gave none says so.
        `first_failure`: return when one failed, without those that had not answered by then."""
        names: dict[str, list[str]] = {}
        for name, one in self.members.items():
            names.setdefault(one.worker, []).append(name)
        replies: dict[str, Reply] = {}
        calls = self.workers.each(function, *values, workers=sorted(names), within_s=within_s)
        async with aclosing(calls), self._heard_of():
            async for answer in calls:
                new = _of_members(answer, names[answer.worker])
                replies |= new
                if first_failure and any(one.problem for one in new.values()):
                    break
        return replies

    @asynccontextmanager
    async def _heard_of(self) -> AsyncIterator[None]:
        """While some answer late the others must not think that the coordinator has died."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(self.settings.lease_s / 4)
                with suppress(LivedumpError):
                    await self.workers.all(
                        worker_side.poll, self.id, self.settings.lease_s,
                        workers=self._addresses(), within_s=self.settings.lease_s / 4,
                    )  # fmt: skip

        teller = asyncio.ensure_future(tell())
        try:
            yield
        finally:
            teller.cancel()

    def _keep(self, replies: Mapping[str, Reply]) -> None:
        for name, reply in replies.items():
            if isinstance(reply.value, Taken):
                self._taken[name] = reply.value

    def _sort_out(self, what: str, replies: Mapping[str, Reply]) -> None:
        """HostError: one failed, and this is not best effort, or none is left. Else go on without
        those."""
        failed = {name: one.problem for name, one in replies.items() if one.problem}
        for name, why in failed.items():
            self.left_out.append(LeftOut(name, f"{what}: {why}"))
        if failed and (not self.settings.best_effort or len(failed) == len(self.members)):
            name, why = next(iter(failed.items()))
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            code = replies[name].errno
            raise HostError(f"{what} of {self.members[name]} failed: {why}{more}", errno=code)
        for name in failed:
            self._dropped[name] = self.members.pop(name).worker

    # --------------------------------------------------------------------- manifest

    def manifest(self) -> Manifest:
        """What there is now."""
        records = tuple(self._record(one) for one in self.members.values())
        how, settings = self.settings.how, self.settings
        most = int(settings.most_skew_s * 1e9)
        verdict, reason = judge_fleet(how, records, self.left_out, most)
        whole = how == "barrier" and all(one.held for one in records)
        return Manifest(
            id=self.id, how=how, one_instant=whole, verdict=verdict, reason=reason,
            best_effort=settings.best_effort, agreed_ns=self._agreed_ns,
            reference=self._reference, skew=skew_of(records),
            most_skew_ns=most if how == "clock" else None, members=records,
            left_out=tuple(self.left_out), made_by=__version__,
        )  # fmt: skip

    def _record(self, one: MemberHere) -> MemberRecord:
        outcome = self._outcome(one.name) or MemberOutcome("incomplete", "it was left", None, None)
        barrier, taken = self.settings.how == "barrier", self._taken.get(one.name)
        return MemberRecord(
            name=one.name, host=one.host.device, computer=one.computer, boot=one.boot,
            worker=one.worker, machine=one.host.machine, dump=outcome.dump,
            dump_id=self.dump_id(one.name).hex(), verdict=outcome.verdict, reason=outcome.reason,
            held=(taken is not None and taken.stood) if barrier else None,
            taken=taken, offset=self._offsets.get(one.name),
            clock=one.clock, bytes=self._sizes.get(one.name, 0), checksum=outcome.checksum,
            increment=outcome.increment,
        )  # fmt: skip


def _of_members(answer: Said | Lost, names: Sequence[str]) -> dict[str, Reply]:
    """One worker's answer, by member."""
    if isinstance(answer, Lost):
        return dict.fromkeys(names, Reply(None, 0, answer.why))
    silent = Reply(None, 0, "its worker has released it")
    return {name: answer.value.get(name, silent) for name in names}
