# SPDX-License-Identifier: GPL-2.0-or-later
"""`console`: a terminal on the serial line of a host's machine."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.arguments import Commands, add_command, add_device
from livedumpfs.cli.outcome import Exit, note
from livedumpfs.cli.output import INPUT_FD, is_terminal, pass_on
from livedumpfs.errors import LivedumpError

if TYPE_CHECKING:
    from livedumpfs.client import Client

LEAVE: Final = b"\x1d"
"""Control-]"""
_EVERY_S: Final = 0.05
_MOST: Final = 512
"""Bytes that are typed at once."""


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "console",
        "Show what the machine prints, and type at it. Control-] leaves.",
        run_console,
    )
    add_device(parser)
    parser.add_argument("--no-input", action="store_true", help="only show")


def run_console(args: argparse.Namespace) -> int:
    """Until the user leaves, or the host ends."""
    from livedumpfs.client import Client

    with Client(args.device) as client:
        terminal = not args.no_input and is_terminal(sys.stdin)
        screen = Screen(client)
        screen.show()
        if terminal:
            note("Control-] leaves the console")
        with _keys() if terminal else contextlib.nullcontext():
            _follow(client, screen, reading=not args.no_input)
    return Exit.DONE


class Screen:
    """What was printed since the last look."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen = 0

    def show(self) -> None:
        """LivedumpError: the host has gone, or its machine has no console."""
        first, _, newest = self._client.read("machine/console.stream").partition(b"\n")
        end = int(first)
        new = min(end - self._seen, len(newest))
        self._seen = end
        if new:
            pass_on(newest[-new:])


def _follow(client: Client, screen: Screen, *, reading: bool) -> None:
    waiting = b""
    while True:
        can_read = reading and not waiting
        ready, _, _ = select.select([INPUT_FD] if can_read else [], [], [], _EVERY_S)
        if ready:
            waiting = os.read(INPUT_FD, _MOST)
            reading = bool(waiting)
            if LEAVE in waiting:
                return
        if waiting and _type(client, waiting):
            waiting = b""
        try:
            screen.show()
        except LivedumpError:
            return  # the machine was switched off, and its host has ended


def _type(client: Client, text: bytes) -> bool:
    """False: the guest has not read what was typed before."""
    try:
        client.write("machine/console", text)
    except LivedumpError as error:
        if error.errno == errno.EAGAIN:
            return False
        raise
    return True


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Each key goes to the guest at once, Control-C too."""
    before = termios.tcgetattr(INPUT_FD)
    tty.setraw(INPUT_FD)
    try:
        yield
    finally:
        termios.tcsetattr(INPUT_FD, termios.TCSADRAIN, before)
        pass_on(b"\r\n")
