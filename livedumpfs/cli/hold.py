# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump --hold`: the snapshot stays readable after the seal, until the command is interrupted."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.outcome import note, sentence
from livedumpfs.cli.outlet import STANDARD_OUTPUT
from livedumpfs.errors import LivedumpError, UsageError
from livedumpfs.signal_event import SignalEvent

if TYPE_CHECKING:
    from livedumpfs.client import Client

_LOOK_S: Final = 0.5
"""Seconds between two checks whether the dump still exists."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_hold(parser: argparse.ArgumentParser) -> None:
    """Add the option `--hold`."""
    parser.add_argument(
        "--hold",
        action="store_true",
        help="keep the snapshot readable after the dump is sealed, until Ctrl-C",
    )


def check_hold(args: argparse.Namespace) -> None:
    """UsageError: --hold with standard output as the target."""
    if args.hold and args.target == STANDARD_OUTPUT:
        raise UsageError(
            "--hold does not go with standard output",
            hint="what has left by a pipe cannot be read in snapshot/",
        )


def hold(client: Client) -> bool:
    """Return at a signal, or when another program releases the dump, or its host ends. Meanwhile
    the snapshot can be read. The dump on the target does not change. False: the host has ended, and
    there is nothing left to release."""
    from livedumpfs.abi import State
    from livedumpfs.hosts.device import has_ended

    with _interrupted() as ended:
        snapshot = os.path.join(client.mountpoint, "snapshot")
        note(f"the snapshot stays in {snapshot} until Ctrl-C")
        try:
            while not ended.wait(_LOOK_S):
                if client.status().state is not State.FINISH:
                    note(client.stats().get("released") or "the dump was released")
                    return True
        except LivedumpError as error:
            if isinstance(error, OSError) and has_ended(client.device, error):
                note("the snapshot has gone: its host has ended, and released it")
                return False
            note(f"the snapshot has gone: {sentence(error)}")
    return True


@contextmanager
def _interrupted() -> Iterator[SignalEvent]:
    """An event that a signal sets instead of ending the command: here it is no failure."""
    ended = SignalEvent()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in _SIGNALS}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
