# SPDX-License-Identifier: GPL-2.0-or-later
"""`watch`: a live picture of a host's dump in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.arguments import Commands, add_command, seconds
from livedumpfs.cli.outcome import Exit
from livedumpfs.cli.output import is_terminal, shielded
from livedumpfs.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from livedumpfs.cli.host_samples import HostSamples
    from livedumpfs.cli.terminal_keys import TerminalKeys

EVERY_S: Final = 0.5
"""Seconds between two looks at the host."""
_LEAST_S: Final = 0.05
_TICK_S: Final = 0.1
"""Until the size of the terminal is looked at again."""
_SILENT_S: Final = 2.0
"""Seconds without an answer of the host after which the screen says so."""


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "watch",
        "Show a live picture of the host's dump: its page map, rates, waits and stalls. "
        "Keys sweep and release it.",
        run_watch,
    )
    parser.add_argument(
        "host",
        metavar="HOST",
        nargs="?",
        help="its livedump file, its mount's directory, its pid or its name; default: "
        "LIVEDUMP_DEVICE, else the only running host of this user",
    )
    parser.add_argument(
        "--every",
        type=seconds,
        default=EVERY_S,
        metavar="SECONDS",
        help=f"between two looks at the host; default: {EVERY_S:g}",
    )


def run_watch(args: argparse.Namespace) -> int:
    """Until `q` is typed. What the host does goes on."""
    _expect_terminal()
    from rich.console import Console

    from livedumpfs.cli.host_samples import HostSamples
    from livedumpfs.cli.terminal_keys import TerminalKeys
    from livedumpfs.client import Client

    with Client(args.host) as client:
        samples = HostSamples(client, max(args.every, _LEAST_S), time.monotonic)
        samples.start()
        with TerminalKeys(sys.stdin.fileno()) as keys:
            _show(Console(file=shielded(sys.stdout)), keys, samples)
    return Exit.DONE


def _expect_terminal() -> None:
    """UsageError: there is none, or it cannot show a picture."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError(
            "watch needs a terminal", hint="`livedump status` prints the same once, also --json"
        )
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        raise UsageError(
            "watch needs a terminal that can move its cursor, and TERM does not name one",
            hint="`livedump status` prints the same once",
        )


def _show(console: Console, keys: TerminalKeys, samples: HostSamples) -> None:
    """Draw until `q`, or until the terminal goes. What the host raised, when it ended."""
    from rich.live import Live

    from livedumpfs.cli.page_colours import has_colours
    from livedumpfs.cli.terminal_keys import CLOSED
    from livedumpfs.cli.watch_figures import History
    from livedumpfs.cli.watch_keys import Dialogue, Wish
    from livedumpfs.cli.watch_screen import Look, screen

    history, dialogue = History(), Dialogue()
    coloured, drawn = has_colours(console), None
    with Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as live:
        while samples.problem is None:
            typed = keys.read(_TICK_S)
            for key in typed:
                last = history.last
                step = dialogue.typed(key, last.stats) if last else None
                if key == CLOSED or (step and step.wish is Wish.QUIT) or (key == "q" and not last):
                    return
                if step:
                    samples.do(step)
            new = samples.take()
            for sample in new:
                history.add(sample)
            if samples.notice:
                dialogue.notice, samples.notice = samples.notice, ""
            silent = samples.silent_s
            silent = silent if silent > _SILENT_S else 0.0
            size = console.size
            if new or typed or silent or size != drawn:
                look = Look(size.width, size.height, coloured, console.options.ascii_only)
                live.update(screen(history, dialogue, look, silent), refresh=True)
                drawn = size
    raise samples.problem
