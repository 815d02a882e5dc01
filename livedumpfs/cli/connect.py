# SPDX-License-Identifier: GPL-2.0-or-later
"""From options to INIT, and waiting for FINISH: what `dump` and the single steps share."""

from __future__ import annotations

import argparse
import errno
from typing import Final

from livedumpfs.abi import Arming, Backend, Compression, Format, Policy, State, Table, Verdict
from livedumpfs.cli.conclusion import broken
from livedumpfs.cli.progress import Display
from livedumpfs.client import Client, DumpStatus, InitOptions
from livedumpfs.errors import StateError, UsageError


def init_options(args: argparse.Namespace, *, release_on_close: bool) -> InitOptions:
    """The settings of add_settings; those not given are the host's. UsageError: some that do not go
    with the format, if one was given; the host says it otherwise."""
    refuse_foreign(args)
    return InitOptions(
        format=Format[args.format.upper()] if args.format else None,
        policy=Policy[args.policy.upper()] if args.policy else None,
        arming=Arming[args.arming.upper()] if args.arming else None,
        backend=Backend[args.backend.upper()] if args.backend else None,
        granule=args.granule,
        pool=args.pool,
        spill_limit=args.spill_limit,
        sweep_rate=args.sweep_rate,
        stall_deadline=args.deadline,
        force=args.force,
        buffered=args.buffered,
        release_on_close=release_on_close,
        sidecar=args.sidecar,
        table=Table[args.table.upper()] if args.table else None,
        compression=Compression[args.compress.upper()] if args.compress else None,
        level=args.level,
        threads=args.threads,
        max_age=args.max_age,
    )


def refuse_foreign(args: argparse.Namespace) -> None:
    """UsageError: an option of one format, and another format."""
    for option, format in _BELONGS.items():
        if getattr(args, option) and args.format not in (None, format):
            raise UsageError(f"--{option} goes with --format {format}, not with {args.format}")
    if args.sidecar and args.table == "tail":
        raise UsageError("--sidecar does not go with --table tail")


_BELONGS: Final = {
    "compress": "kdump",
    "level": "kdump",
    "threads": "kdump",
    "table": "raw",
    "sidecar": "raw",
}


def follow(
    client: Client, shown: Display, timeout: float | None = None, *, name: str | None = None
) -> DumpStatus:
    """Show the progress until FINISH, and say at once when it can no longer be consistent. Errors
    as in Client.progress; `timeout` in seconds; `name`: what to call the target."""
    said = False
    try:
        for status in client.progress(timeout=timeout):
            shown.update(status.bytes_done, status.bytes_total, status.lost)
            if status.broken and not said and not status.finished:
                said = True
                shown.warn(f"warning: {broken(client, status, name)}")
    except StateError as error:
        status = client.status()
        # Released by another program between FINISH and our next look.
        sealed = status.verdict in (Verdict.CONSISTENT, Verdict.TORN)
        if error.errno != errno.ECANCELED or status.state is not State.UNINIT or not sealed:
            raise
    return status
