# SPDX-License-Identifier: GPL-2.0-or-later
"""From options to INIT, and waiting for FINISH: shared by `dump` and the single steps."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Callable

from livedumpfs.abi import State, Verdict
from livedumpfs.cli.conclusion import broken
from livedumpfs.cli.given import given
from livedumpfs.cli.progress import Display
from livedumpfs.client import Client, DumpStatus, InitOptions
from livedumpfs.errors import StateError


def init_options(args: argparse.Namespace, *, release_on_close: bool) -> InitOptions:
    """The settings of add_settings; settings that are not given are left to the host. UsageError:
    some do not fit the format, if it was given; else the host reports that."""
    return InitOptions(release_on_close=release_on_close, **given(args))


def follow(
    client: Client,
    shown: Display,
    timeout: float | None = None,
    *,
    name: str | None = None,
    cause: Callable[[], str] = str,
) -> DumpStatus:
    """Show the progress until FINISH, and report at once when the dump can no longer be consistent.
    Errors as in Client.progress. `timeout` in seconds; `name`, `cause`: see broken()."""
    said = False
    try:
        for status in client.progress(timeout=timeout):
            shown.update(status.bytes_done, status.bytes_total, status.lost)
            shown.picture(client.pages)
            if status.broken and not said and not status.finished:
                said = True
                shown.warn(f"warning: {broken(client, status, name, cause())}")
    except StateError as error:
        status = client.status()
        # Another program may have released the dump between FINISH and the next poll.
        sealed = status.verdict in (Verdict.CONSISTENT, Verdict.TORN)
        if error.errno != errno.ECANCELED or status.state is not State.UNINIT or not sealed:
            raise
    return status
