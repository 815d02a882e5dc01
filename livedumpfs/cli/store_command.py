# SPDX-License-Identifier: GPL-2.0-or-later
"""`list`, `forget` and `gc`: the dumps of a store."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from livedumpfs.cli import text
from livedumpfs.cli.arguments import Commands, add_command, duration, natural
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.identity import add_identity
from livedumpfs.cli.outcome import Exit, complain, note
from livedumpfs.cli.output import report, say
from livedumpfs.cli.progress import display
from livedumpfs.errors import UsageError, printable
from livedumpfs.units import format_size

if TYPE_CHECKING:
    from livedumpfs.stores import Collected, Retention, Store, StoredDump, StoreTotals

STORE_HELP: Final = "folder of the store, or store:PLACE"
_SHORT: Final = 8
"""Digits of a dump's id that are shown."""
_PERIODS: Final = {
    "hourly": "hours",
    "daily": "days",
    "weekly": "weeks",
    "monthly": "months",
    "yearly": "years",
}


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "list",
        "List the dumps of a store; without one the hosts that run here, and what each does.",
        run_list,
    )
    parser.add_argument(
        "store", metavar="STORE", nargs="?", help=f"{STORE_HELP}; default: the hosts"
    )
    add_identity(parser)
    add_json(parser)
    _add_forget(commands)
    parser = add_command(
        commands, "gc", "Remove from a store what none of its dumps needs.", run_gc
    )
    parser.add_argument("store", metavar="STORE", help=STORE_HELP)
    add_identity(parser)
    _add_dry_run(parser)
    add_json(parser)


def _add_forget(commands: Commands) -> None:
    parser = add_command(
        commands,
        "forget",
        "Take dumps out of a store: those that are named, or all that no rule keeps. Their bytes "
        "go with the next gc.",
        run_forget,
    )
    parser.add_argument("store", metavar="STORE", help=STORE_HELP)
    add_identity(parser)
    parser.add_argument(
        "dumps", metavar="DUMP", nargs="*", help="name, or how it begins; or `latest`"
    )
    parser.add_argument(
        "--keep-last", type=natural, default=0, metavar="N", help="the newest N stay"
    )
    for name, periods in _PERIODS.items():
        parser.add_argument(
            f"--keep-{name}",
            type=natural,
            default=0,
            metavar="N",
            help=f"the newest of each of the last N {periods} that have one stays",
        )
    parser.add_argument(
        "--keep-within",
        type=duration,
        default=0.0,
        metavar="TIME",
        help="what was taken so long before the newest stays: 90min, 12h, 30d",
    )
    _add_dry_run(parser)
    add_json(parser)


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


# ---------------------------------------------------------------- list


def run_list(args: argparse.Namespace) -> int:
    """Print the dumps, the oldest first, and what the store has in all; or the hosts."""
    if args.store is None:
        from livedumpfs.cli.hosts_list import list_hosts

        return list_hosts(args)
    from livedumpfs.stores import list_dumps, open_store, totals

    with open_store(args.store) as store:
        dumps = list_dumps(store)
        sums = totals(store, dumps)
        chunk_size = store.about.chunk_size
    for one in dumps:
        if one.problem:
            note(one.problem)
    if args.json:
        found = {
            "store": args.store,
            "chunk_size": chunk_size,
            "dumps": [_as_json(one) for one in dumps],
            "totals": {**asdict(sums), "ratio": round(sums.ratio, 3)},
        }
        return tell_facts("list", found)
    if dumps:
        head = ("dump", "taken", "machine", "verdict", "size", "new", "since")
        say(text.columns([head, *map(_row, dumps)]))
    say(_sums(sums))
    return Exit.DONE


def _as_json(one: StoredDump) -> dict[str, Any]:
    import msgspec

    record = msgspec.to_builtins(one.record) if one.record else {}
    return {
        **record,
        "name": one.name,
        "taken_ns": one.taken_ns,
        "verdict": one.verdict,
        "image_size": one.size,
        "problem": one.problem or None,
    }


def _row(one: StoredDump) -> tuple[str, ...]:
    record = one.record
    machine = f"{record.identity or record.machine}@{record.host}" if record else "-"
    return (
        one.name,
        text.instant(one.taken_ns // 10**6 * 10**6),
        machine,
        one.verdict,
        format_size(one.size),
        format_size(record.new_bytes) if record else "-",
        record.since[:_SHORT] if record and record.since else "-",
    )


def _sums(sums: StoreTotals) -> str:
    ratio = f", {sums.ratio:.3g} times less" if sums.ratio else ""
    return (
        f"{text.count(sums.dumps, 'dump')} of {format_size(sums.image_bytes)} in "
        f"{text.count(sums.chunks, 'chunk')} of {format_size(sums.chunk_bytes)}{ratio}"
    )


# ---------------------------------------------------------------- forget


def run_forget(args: argparse.Namespace) -> int:
    """Take dumps out. Nothing is taken out if a name is wrong."""
    from livedumpfs.stores import Retention, open_store

    names = ("last", *_PERIODS, "within")
    rules = Retention(**{name: getattr(args, f"keep_{name}") for name in names})
    if not args.dumps:
        rules.expect_a_rule()
    elif rules != Retention():
        raise UsageError("either dumps are named, or rules are given")
    with open_store(args.store) as store, store.lock(alone=True):
        reasons, gone = _choose(store, args.dumps, rules)
        for name in gone:
            if not args.dry_run:
                store.remove(name)
        if gone and not args.dry_run:
            store.objects.sync()
    if args.json:
        said = {"store": args.store, "dry_run": args.dry_run, "kept": reasons, "forgotten": gone}
        return tell_facts("forget", said)
    rows = [*reasons.items(), *((name, "") for name in gone)]
    word = "would be forgotten" if args.dry_run else "forgotten"
    for name, why in sorted(rows):
        report(f"{printable(name)}  {f'kept: {why}' if why else word}")
    if gone and not args.dry_run:
        note(f"their bytes go with `livedump gc {args.store}`")
    return Exit.DONE


def _choose(store: Store, chosen: list[str], rules: Retention) -> tuple[dict[str, str], list[str]]:
    """Name -> why it stays, of the dumps that rules keep; and the names of those that go."""
    from livedumpfs.stores import kept, list_dumps

    if chosen:
        return {}, sorted({store.resolve(name) for name in chosen})
    dumps = list_dumps(store)
    reasons = {name: ", ".join(why) for name, why in kept(dumps, rules).items()}
    return reasons, [one.name for one in dumps if one.name not in reasons]


# ---------------------------------------------------------------- gc


def run_gc(args: argparse.Namespace) -> int:
    """Remove what nothing needs. Exit status 3 when a dump needs what is not there."""
    from livedumpfs.stores import collect, open_store

    with open_store(args.store) as store, display("gc") as shown:
        found = collect(
            store,
            dry_run=args.dry_run,
            on_removed=lambda done, total: shown.update(done, total, 0),
        )
    report(_collected(found, args.dry_run))
    code: int = Exit.NOT_VALID if found.missing else Exit.DONE
    if args.json:
        said = {"store": args.store, "dry_run": args.dry_run, **asdict(found)}
        code = tell_facts("gc", said, code)
    if found.missing:
        chunks = "1 chunk is" if found.missing == 1 else f"{found.missing} chunks are"
        complain(
            f"{args.store}: {chunks} missing that its dumps need (`livedump verify {args.store}` "
            "says whose)"
        )
        return Exit.NOT_VALID
    return code


def _collected(found: Collected, dry_run: bool) -> str:
    verb = "would remove" if dry_run else "removed"
    parts = [f"{text.count(found.chunks, 'chunk')} of {format_size(found.chunk_bytes)}"]
    if found.records:
        parts.append(text.count(found.records, "record") + " of no dump")
    if found.unfinished:
        parts.append(text.count(found.unfinished, "unfinished file"))
    return f"{verb} {', '.join(parts)}; {text.count(found.kept, 'chunk')} stay"
