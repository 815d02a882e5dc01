# SPDX-License-Identifier: GPL-2.0-or-later
"""How a host is watched: `--metrics` and `--log`, options of each command that runs a host."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.output import is_journal
from livedumpfs.errors import HostError, UsageError

if TYPE_CHECKING:
    import socket

    from livedumpfs.mount.journal import Fields
    from livedumpfs.mount.metrics_address import MetricsAddress

_JOURNAL: Final = "journal"
_NONE: Final = "none"


def add_watched_options(parser: argparse.ArgumentParser) -> None:
    """Add both."""
    parser.add_argument(
        "--metrics",
        type=_address,
        metavar="[ADDR:]PORT",
        help="serve the metrics for Prometheus there, by HTTP; ADDR is an IP address, default "
        "127.0.0.1; port 0: a free one",
    )
    parser.add_argument(
        "--log",
        choices=(_JOURNAL, _NONE),
        help="where the life of each dump is logged; default: the journal as a service of "
        "systemd, else nowhere",
    )


def _address(text: str) -> MetricsAddress:
    from livedumpfs.mount.metrics_address import MetricsAddress

    try:
        return MetricsAddress.read(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@dataclass(frozen=True)
class Watched:
    """What Host takes for them."""

    metrics: socket.socket | None = None
    log: Callable[[Fields], None] | None = None

    @property
    def places(self) -> str:
        """Lines for a host's announcement, each with a newline before it."""
        if self.metrics is None:
            return ""
        from livedumpfs.mount.metrics_address import metrics_url

        return f"\nmetrics {metrics_url(self.metrics)}"


@contextlib.contextmanager
def watched(args: argparse.Namespace) -> Iterator[Watched]:
    """To be entered before the machine is made: nothing is started that could not be watched as it
    was asked for. HostError: a port or the journal cannot be had."""
    with contextlib.ExitStack() as stack:
        if getattr(args, "check", False):  # of a host that is not to run
            yield Watched()
            return
        metrics = stack.enter_context(args.metrics.listen()) if args.metrics else None
        yield Watched(metrics, _log(args, stack))


def _log(args: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[Fields], None] | None:
    if args.log == _NONE or (args.log is None and not is_journal()):
        return None
    from livedumpfs.mount.journal import Journal

    try:
        return stack.enter_context(Journal()).send
    except HostError:
        if args.log:
            raise
        return None  # a container may have the stream alone
