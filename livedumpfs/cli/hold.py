# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump --hold`: the snapshot stays readable after the seal, until the command is interrupted."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.outcome import note, sentence
from livedumpfs.cli.outlet import STANDARD_OUTPUT
from livedumpfs.errors import LivedumpError, UsageError

if TYPE_CHECKING:
    from livedumpfs.client import Client

_LOOK_S: Final = 0.5
"""Seconds after which it looks whether the dump is still there."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_hold(parser: argparse.ArgumentParser) -> None:
    """`--hold`."""
    parser.add_argument(
        "--hold",
        action="store_true",
        help="keep the snapshot readable after the dump is sealed, until Ctrl-C",
    )


def check_hold(args: argparse.Namespace) -> None:
    """UsageError: with what it does not go."""
    if args.hold and args.target == STANDARD_OUTPUT:
        raise UsageError(
            "--hold does not go with standard output",
            hint="what has left by a pipe cannot be read in snapshot/",
        )


def hold(client: Client) -> bool:
    """Until a signal, or until the dump is released by others or its host ends: its readers go on
    meanwhile. The dump on the target is what it was before. False: the host has ended, and so
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
def _interrupted() -> Iterator[threading.Event]:
    """Set by a signal that asks us to end: here that is no failure."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in _SIGNALS}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
