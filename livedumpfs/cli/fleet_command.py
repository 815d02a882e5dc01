# SPDX-License-Identifier: GPL-2.0-or-later
"""`fleet`: dumps of many hosts that belong together, on the workers of a Dask cluster."""

from __future__ import annotations

import argparse
from typing import Any, Final

from livedumpfs.cli import fleet_cluster, fleet_map_command, text
from livedumpfs.cli.arguments import Commands, add_command, add_option, client_options, seconds
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.given import given
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.output import is_quiet, report, say
from livedumpfs.errors import LivedumpError
from livedumpfs.units import format_duration, format_size

_NOT_HERE: Final = ("sidecar", "table", "max_age", "stall_deadline", "format")
"""Options of INIT that a fleet dump sets itself."""
_FORMATS: Final = ("elf", "kdump")


def add_commands(commands: Commands) -> None:
    """Register this group: `fleet` with commands of its own."""
    parser = commands.add_parser(
        "fleet",
        help="dump many hosts at once",
        description="Dumps of many hosts that belong together, on the workers of a Dask cluster. "
        "docs/fleet.md says what they promise.",
    )
    own = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=type(parser))
    fleet_cluster.add_commands(own)
    _add_dump(own)
    listed = add_command(own, "list", "List the fleet dumps in a folder or store.", run_list)
    listed.add_argument("place", metavar="PLACE", help="folder or store")
    add_json(listed)
    shown = add_command(own, "show", "Show what a fleet dump is worth.", run_show)
    shown.add_argument("manifest", metavar="MANIFEST", help="its .fleet.json, or STORE#ID")
    shown.add_argument(
        "--verify",
        action="store_true",
        help="open the dumps on this computer, and compare id, verdict and checksum",
    )
    add_json(shown)
    fleet_map_command.add_commands(own)


def _add_dump(own: Commands) -> None:
    dump = add_command(
        own,
        "dump",
        "Dump all members at one instant. Ctrl-C releases all.",
        run_dump,
    )
    fleet_cluster.add_client(dump)
    dump.add_argument("--to", metavar="PLACE", required=True, help="store:STORE or a folder")
    way = dump.add_mutually_exclusive_group()
    way.add_argument(
        "--barrier",
        action="store_true",
        help="all are held, then all armed, then all let go: one instant for all",
    )
    way.add_argument(
        "--at-clock",
        action="store_true",
        help="each begins at one agreed time, by its own clock; the default",
    )
    dump.add_argument(
        "--best-effort",
        action="store_true",
        help="go on without members that cannot; else one that cannot fails the whole",
    )
    dump.add_argument(
        "--deadline",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="with --barrier: how long a machine may stand; default: 1",
    )
    dump.add_argument(
        "--max-skew",
        type=seconds,
        default=0.1,
        metavar="SECONDS",
        help="by clock: how far apart the instants may be; more is torn; default: 0.1",
    )
    dump.add_argument(
        "--lease",
        type=seconds,
        default=15.0,
        metavar="SECONDS",
        help="a worker that hears nothing of this command for so long releases what it has; "
        "default: 15",
    )
    dump.add_argument(
        "--member",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one, as `fleet members` calls it; may be given several times",
    )
    group = dump.add_argument_group("how each is dumped")
    group.add_argument(
        "--format", choices=_FORMATS, default="elf", help="layout of each dump; default: elf"
    )
    for one in client_options():
        if one.name not in _NOT_HERE:
            add_option(group, one)
    add_json(dump)
    members = add_command(own, "members", "List the members of a cluster.", run_members)
    fleet_cluster.add_client(members)
    add_json(members)


def run_members(args: argparse.Namespace) -> int:
    """Print them."""
    from livedumpfs.fleet import cluster_members

    with fleet_cluster.connected(args) as client:
        found = cluster_members(client, allow_root=args.allow_root)
        if args.json:
            return tell_facts("fleet members", {"members": [_member_facts(one) for one in found]})
        for one in found:
            say(f"{one.name}  {one.host.machine or '?'}  {one.worker}  {one.host.device}")
    return Exit.DONE


def run_dump(args: argparse.Namespace) -> int:
    """The whole of it."""
    from livedumpfs.cli.fleet_progress import fleet_display
    from livedumpfs.fleet import FleetSettings, fleet_dump

    settings = FleetSettings(
        to=args.to,
        how="barrier" if args.barrier else "clock",
        best_effort=args.best_effort,
        deadline_s=args.deadline,
        most_skew_s=args.max_skew,
        lease_s=args.lease,
        options=given(args),
    )
    settings.check()
    with fleet_cluster.connected(args) as client, fleet_display() as shown:
        path, manifest = fleet_dump(
            client, settings, members=args.member, allow_root=args.allow_root, watch=shown.update
        )
    if args.json:
        return tell_facts("fleet dump", _manifest_facts(path, manifest), _worth(manifest))
    if not is_quiet():
        print_manifest(manifest)
    report(f"manifest  {path}")
    return _worth(manifest)


def _member_facts(one: Any) -> dict[str, Any]:
    here = {"name": one.name, "worker": one.worker, "computer": one.computer}
    return {**here, "machine": one.host.machine, "device": one.host.device}


def _manifest_facts(path: Any, manifest: Any) -> dict[str, Any]:
    """The file, and what it says, judged again."""
    import msgspec

    return {"path": str(path), "manifest": msgspec.to_builtins(manifest)}


def run_list(args: argparse.Namespace) -> int:
    """One line each. A manifest that cannot be read is named, and the others are listed."""
    from livedumpfs.fleet import judge_again, list_manifests

    code: int = Exit.DONE
    facts = []
    for path, found in list_manifests(args.place):
        if isinstance(found, LivedumpError):
            complain(str(found))
            code = Exit.NOT_VALID
            continue
        found = judge_again(found)
        facts.append(_manifest_facts(path, found))
        if args.json:
            continue
        instants = [one.instant_ns for one in found.members if one.instant_ns]
        when = text.instant(min(instants)) if instants else "no instant"
        say(
            f"{found.id}  {when}  {found.how}  {found.verdict}  "
            f"{text.count(len(found.members), 'member')}  {path}"
        )
    return tell_facts("fleet list", {"dumps": facts}, code) if args.json else code


def run_show(args: argparse.Namespace) -> int:
    """All that the manifest says, and no better than what it says of its members. The exit code is
    that of `verify`: 0 for a consistent one."""
    from livedumpfs.fleet import judge_again, problems_of, read_manifest

    manifest = judge_again(read_manifest(args.manifest))
    if not args.json:
        print_manifest(manifest)
    code = _worth(manifest)
    problems = list(problems_of(manifest)) if args.verify else []
    for problem in problems:
        complain(problem)
        code = Exit.NOT_VALID
    if args.json:
        found = {**_manifest_facts(args.manifest, manifest), "problems": problems}
        return tell_facts("fleet show", found, code)
    return code


def _worth(manifest: Any) -> int:
    for one in manifest.left_out:
        note(f"without {one.name}: {one.why}")
    if manifest.verdict == "consistent":
        return Exit.DONE
    complain(f"the fleet dump {manifest.id} is {manifest.verdict}: {manifest.reason}")
    return Exit.NOT_VALID


def print_manifest(manifest: Any) -> None:
    """Members, and what they are worth together."""
    for one in manifest.members:
        if one.increment and one.increment.tracked and one.increment.all_read:
            note(f"{one.name}: all of the memory was read: {one.increment.all_read}")
        pause = f"stood {format_duration(one.taken.pause_ns)}" if one.taken else "no instant"
        say(f"{one.name}  {one.verdict}  {pause}  {_read(one)}  {one.dump or 'no dump'}")
    say(
        text.table(
            [
                ("fleet dump", manifest.id),
                ("instant", _instant(manifest)),
                ("verdict", manifest.verdict),
            ]
        )
    )


def _read(member: Any) -> str:
    """The bytes of its memory, and how many of them were not read."""
    found = member.increment
    unread = (
        f", {format_size(found.unread)} as in {found.since[:8]}" if found and found.since else ""
    )
    return f"{format_size(member.bytes)}{unread}"


def _instant(manifest: Any) -> str:
    """What holds the dumps together."""
    if manifest.one_instant:
        return "one for all members: none ran until all were armed"
    if manifest.skew is None:
        return f"by {manifest.how}"
    apart = format_duration(manifest.skew.ns)
    wrong = format_duration(manifest.skew.error_ns)
    return (
        f"{apart} apart, +-{wrong} (by {manifest.how}): a message of one after its instant may be "
        "in the dump of another"
    )
