# SPDX-License-Identifier: GPL-2.0-or-later
"""fleet_map: functions, scripts and what is built in, over the dumps of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from livedumpfs.dumpfile import DumpFile
from livedumpfs.errors import UsageError
from livedumpfs.fleet.built_in import difference, page_hashes, shared_task, tasks_of
from livedumpfs.fleet.manifest import Manifest, MemberRecord
from livedumpfs.fleet.mapping import Mapped, Work, rows_of, run_all
from livedumpfs.fleet.script import call_function, run_script

if TYPE_CHECKING:
    from distributed import Client

BUILT_IN = ("tasks", "shared", "diff")


def fleet_map(
    client: Client,
    function: Callable[[DumpFile], Any],
    manifest: Manifest,
    *,
    allow_root: bool = False,
) -> Mapped:
    """Call `function` with each dump, open, on a worker. It returns a row (a mapping), several, or
    one value. HostError: there are no workers, or the scheduler has gone."""
    return _run(
        client,
        manifest,
        lambda one: Work(one, call_function, (function, one.dump)),
        allow_root=allow_root,
    )


def map_script(
    client: Client,
    text: str,
    name: str,
    manifest: Manifest,
    *,
    vmlinux: str | None = None,
    allow_root: bool = False,
) -> Mapped:
    """The same with the text of a script; see script.run_script."""
    return _run(
        client,
        manifest,
        lambda one: Work(one, run_script, (text, name, one.dump, vmlinux)),
        allow_root=allow_root,
    )


def map_tasks(
    client: Client, manifest: Manifest, *, vmlinux: str | None = None, allow_root: bool = False
) -> Mapped:
    """Tasks of all guests."""
    return _run(
        client,
        manifest,
        lambda one: Work(one, tasks_of, (one.dump, vmlinux)),
        allow_root=allow_root,
    )


def map_diff(
    client: Client, manifest: Manifest, before: Manifest, *, allow_root: bool = False
) -> Mapped:
    """What changed from `before`, by member. UsageError: no member is in both."""
    old = {one.name: one for one in before.members if one.dump}
    both = [one for one in manifest.members if one.name in old]
    if not both:
        raise UsageError(f"{before.id} and {manifest.id} have no member in common")
    found = _run(
        client,
        manifest,
        lambda one: Work(one, difference, (old[one.name].dump, one.dump)),
        both,
        allow_root=allow_root,
    )
    only = {one.name for one in manifest.members} ^ old.keys()
    found.problems |= dict.fromkeys(sorted(only), "it is in one of the two only")
    return found


def map_shared(client: Client, manifest: Manifest, *, allow_root: bool = False) -> Mapped:
    """Pages that guests share."""
    mapped: Mapped = client.sync(_shared, client, manifest, allow_root, asynchronous=False)
    return mapped


async def _shared(client: Client, manifest: Manifest, allow_root: bool) -> Mapped:
    members, mapped = _with_dumps(manifest.members)
    works = [Work(one, page_hashes, (one.dump,)) for one in members]
    futures, problems = await run_all(client, works, allow_root=allow_root)
    mapped.problems |= problems
    if futures:
        last = client.submit(shared_task, list(futures), *futures.values(), pure=False, retries=0)
        mapped.rows = await last.result()
    return mapped


def _with_dumps(members: Sequence[MemberRecord]) -> tuple[list[MemberRecord], Mapped]:
    mapped = Mapped(problems={one.name: "it has no dump" for one in members if not one.dump})
    return [one for one in members if one.dump], mapped


def _run(
    client: Client,
    manifest: Manifest,
    make: Callable[[MemberRecord], Work],
    some: Sequence[MemberRecord] | None = None,
    *,
    allow_root: bool,
) -> Mapped:
    members, mapped = _with_dumps(manifest.members if some is None else some)

    async def run() -> None:
        futures, problems = await run_all(
            client, [make(one) for one in members], allow_root=allow_root
        )
        mapped.problems |= problems
        for name, future in futures.items():
            try:
                mapped.rows += rows_of(name, await future.result())
            except TypeError as error:
                mapped.problems[name] = str(error)

    client.sync(run, asynchronous=False)
    return mapped
