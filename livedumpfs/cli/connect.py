# SPDX-License-Identifier: GPL-2.0-or-later
"""From options to INIT, and waiting for FINISH: what `dump` and the single steps share."""

from __future__ import annotations

import argparse
import errno

from livedumpfs.abi import State, Verdict
from livedumpfs.cli.conclusion import broken
from livedumpfs.cli.given import given
from livedumpfs.cli.progress import Display
from livedumpfs.client import Client, DumpStatus, InitOptions
from livedumpfs.errors import StateError


def init_options(args: argparse.Namespace, *, release_on_close: bool) -> InitOptions:
    """The settings of add_settings; those not given are the host's. UsageError: some that do not go
    with the format, if one was given; the host says it otherwise."""
    return InitOptions(release_on_close=release_on_close, **given(args))


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
