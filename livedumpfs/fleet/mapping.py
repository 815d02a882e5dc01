# SPDX-License-Identifier: GPL-2.0-or-later
"""One function over all dumps of a fleet dump, as tasks on the workers: each dump is read on the
computer where it is, or, where no worker is there, by any worker that can open it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from livedumpfs.errors import HostError, LivedumpError
from livedumpfs.fleet.cluster_workers import FIND_S, ClusterWorkers, Said, refuse_root
from livedumpfs.fleet.manifest import MemberRecord
from livedumpfs.fleet.worker_side import find

if TYPE_CHECKING:
    from distributed import Client, Future

Row = dict[str, Any]
"""Names of columns, and values that a table can hold: text, numbers, None."""
_LOOK_S: Final = 0.25


@dataclass
class Mapped:
    """What came of it."""

    rows: list[Row] = field(default_factory=list)
    """Each begins with the column `member`."""
    problems: dict[str, str] = field(default_factory=dict)
    """Members without rows, and why."""


@dataclass(frozen=True)
class Work:
    """A call for one member: `function(*values)` on a worker that can read its dump."""

    member: MemberRecord
    function: Callable[..., Any]
    values: tuple[Any, ...]


async def run_all(
    client: Client, works: Sequence[Work], *, allow_root: bool = False
) -> tuple[dict[str, Any], dict[str, str]]:
    """Results by name of the member, as futures stay on the workers; and problems of the others.
    HostError: there are no workers; SchedulerGone; UsageError: a worker is root, and `allow_root`
    is not set."""
    workers = ClusterWorkers(client)
    places = await _places(workers, allow_root=allow_root)
    futures: dict[str, tuple[Future, list[str]]] = {}
    for work in works:
        able = [one for one, computer in places.items() if computer == work.member.computer]
        able = able or list(places)
        future = client.submit(
            work.function, *work.values, workers=able, allow_other_workers=False, pure=False,
            retries=0, key=f"livedump-{work.member.name}-{id(work):x}",
        )  # fmt: skip
        futures[work.member.name] = future, able
    problems = await _wait(workers, futures)
    return {name: one for name, (one, _) in futures.items() if name not in problems}, problems


async def _places(workers: ClusterWorkers, *, allow_root: bool) -> dict[str, str]:
    addresses = await workers.addresses()
    if not addresses:
        raise HostError("the cluster has no workers", hint="start one with `livedump fleet worker`")
    answers = await workers.all(find, workers=addresses, within_s=FIND_S)
    root = [one.worker for one in answers if isinstance(one, Said) and one.value.root]
    refuse_root(root, allowed=allow_root)
    # One whose hosts are gone can still read.
    found = dict.fromkeys(addresses, "")
    found |= {one.worker: one.value.computer for one in answers if isinstance(one, Said)}
    return found


async def _wait(
    workers: ClusterWorkers, futures: Mapping[str, tuple[Future, Sequence[str]]]
) -> dict[str, str]:
    """Until all are done, or can never be: a task whose workers are all dead waits for ever in the
    scheduler. Why some have no result."""
    problems: dict[str, str] = {}
    left = dict(futures)
    while left:
        alive: set[str] = set()
        for name, (future, able) in list(left.items()):
            if future.done():
                del left[name]
                if future.status != "finished":
                    problems[name] = await _why(future)
            else:
                alive = alive or set(await workers.addresses())
                if not alive & set(able):
                    del left[name]
                    problems[name] = f"its worker has died ({', '.join(able)})"
                    await future.cancel(reason="its worker has died")
        if left:
            await asyncio.sleep(_LOOK_S)
    return problems


async def _why(future: Future) -> str:
    error = await future.exception() if future.status == "error" else None
    if isinstance(error, LivedumpError | OSError):
        return str(error)
    if type(error).__name__ == "KilledWorker":
        return "the worker that read it has died, as often as it was tried"
    if error is None:
        return "its task was lost"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def rows_of(member: str, found: Any) -> list[Row]:
    """What a function returned, as rows: a mapping, a sequence of mappings, or one value.
    TypeError: a row that is none."""
    if isinstance(found, Mapping):
        found = [found]
    elif found is None:
        found = []
    elif isinstance(found, str | bytes) or not isinstance(found, Sequence):
        found = [{"value": found}]
    rows = []
    for one in found:
        if not isinstance(one, Mapping):
            raise TypeError(f"a row is a mapping of names to values, not {type(one).__name__}")
        rows.append({"member": member, **{str(name): value for name, value in one.items()}})
    return rows
