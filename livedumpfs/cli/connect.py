# SPDX-License-Identifier: GPL-2.0-or-later
"""From options to INIT, and waiting for FINISH: what `dump` and the single steps share."""

from __future__ import annotations

import argparse

from livedumpfs.abi import Arming, Format, Policy
from livedumpfs.cli.progress import Display
from livedumpfs.client import Client, InitOptions, Status


def init_options(args: argparse.Namespace, *, release_on_close: bool) -> InitOptions:
    """The settings of add_settings; those not given are the host's."""
    return InitOptions(
        format=Format[args.format.upper()] if args.format else None,
        policy=Policy[args.policy.upper()] if args.policy else None,
        arming=Arming[args.arming.upper()] if args.arming else None,
        granule=args.granule,
        pool=args.pool,
        spill_limit=args.spill_limit,
        sweep_rate=args.sweep_rate,
        stall_deadline=args.deadline,
        force=args.force,
        release_on_close=release_on_close,
        sidecar=args.sidecar,
    )


def follow(client: Client, shown: Display, timeout: float | None = None) -> Status:
    """Show the progress until FINISH. Errors as in Client.progress; `timeout` in seconds."""
    for status in client.progress(timeout=timeout):
        shown.update(status.bytes_done, status.bytes_total, status.lost)
    return status
