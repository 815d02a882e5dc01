# SPDX-License-Identifier: GPL-2.0-or-later
"""`host`: runs a machine and serves its mount until it is told to stop."""

from __future__ import annotations

import argparse
import contextlib
import grp
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from livedumpfs import abi
from livedumpfs.cli.arguments import Commands, add_command, size
from livedumpfs.cli.defaults import add_defaults, default_output, default_settings
from livedumpfs.cli.guest_host import add_guest_options, guest_machine
from livedumpfs.cli.linux_host import add_linux_options, linux_machine
from livedumpfs.cli.outcome import Exit, complain, note, sentence
from livedumpfs.cli.output import say
from livedumpfs.cli.text import count
from livedumpfs.cli.watched_host import Watched, add_watched_options, watched
from livedumpfs.errors import HostError, os_cause
from livedumpfs.hosts import registry
from livedumpfs.huge import HUGE
from livedumpfs.units import format_size

if TYPE_CHECKING:
    from livedumpfs.dump import DumpSettings
    from livedumpfs.machines import Machine

DEFAULT_RAM = 256 << 20


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands,
        "host",
        "Run a machine and serve its mount. Ctrl-C or SIGTERM ends it.",
        run_host,
    )
    parser.add_argument(
        "--ram",
        type=size,
        default=DEFAULT_RAM,
        metavar="SIZE",
        help="the machine's memory; default: 256 MiB",
    )
    parser.add_argument(
        "--vcpus",
        type=int,
        choices=range(1, 5),
        default=1,
        metavar="N",
        help="virtual CPUs, 1 to 4; default: 1",
    )
    parser.add_argument(
        "--huge",
        choices=HUGE,
        help="huge pages for the machine's memory: thp, where they can be had, or 2M, of the "
        "system's pool",
    )
    add_guest_options(parser)
    add_linux_options(parser)
    add_mount_options(parser)
    add_defaults(parser)


def add_mount_options(parser: argparse.ArgumentParser) -> None:
    """Options for the place of the mount, for its users, and for what watches the host."""
    parser.add_argument(
        "--mount", metavar="DIR", help="mount here instead of in the runtime folder"
    )
    parser.add_argument(
        "--allow-other", action="store_true", help="let root into the mount of another user"
    )
    parser.add_argument(
        "--group",
        type=group_id,
        metavar="GROUP",
        help="let the members of this group use the mount too",
    )
    parser.add_argument(
        "--longest-hold",
        type=hold_seconds,
        metavar="SECONDS",
        help="the longest that a client may hold the machine, 0: not at all; default: 60",
    )
    add_watched_options(parser)


def hold_seconds(text: str) -> float:
    """Seconds of --longest-hold."""
    most = abi.HOLD_MOST_NS / 1e9
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0 to {most:g} seconds")
    return found


def group_id(text: str) -> int:
    """Number of a group, given by name or number."""
    try:
        return int(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"no such group: {text!r}") from None


def run_host(args: argparse.Namespace) -> int:
    """Build the machine and serve it; remove both at the end."""
    settings = default_settings(args)
    with watched(args) as by:
        machine = linux_machine(args) or guest_machine(args)
        with mount_directory(args.mount) as place:

            def announce(device: str) -> None:
                machine.wait_ready()
                memory = format_size(args.ram) + (
                    f" in huge pages ({args.huge})" if args.huge else ""
                )
                what = f"{machine.name}, {memory}, {count(args.vcpus, 'vCPU')}"
                say(f"{what}: running\ndevice {device}{by.places}")

            return serve(machine, place, args, settings, by, announce)


@dataclass
class Place:
    """The mount point of a host."""

    path: str
    made: os.stat_result | None = None
    """The directory that this process made and will remove; None: it is the user's."""

    @classmethod
    def make(cls, path: Path) -> Place:
        """Make a new directory. HostError."""
        try:
            path.mkdir(mode=0o755)
            return cls(str(path), os.lstat(path))
        except OSError as error:
            code = error.errno or 0
            raise HostError(f"cannot make {path}: {os_cause(code)}", errno=code) from error

    def remove(self) -> None:
        """Remove the directory if it is still the one that this process made; harmless when done
        twice."""
        with contextlib.suppress(OSError):
            if self.made and os.path.samestat(self.made, os.lstat(self.path)):
                os.rmdir(self.path)
        self.made = None  # another directory may get its inode number later


def serve(
    machine: Machine,
    place: Place,
    args: argparse.Namespace,
    settings: DumpSettings,
    by: Watched,
    announce: Callable[[str], None],
) -> int:
    """Serve the machine as a host, watched `by` that; `announce` gets the path of the device file
    when it runs."""
    from livedumpfs.mount.host import Host

    host = Host(
        machine,
        place.path,
        allow_other=args.allow_other,
        group=args.group,
        longest_hold_s=args.longest_hold,
        settings=settings,
        output=default_output(args),
        metrics=by.metrics,
        log=by.log,
    )
    try:
        host.run(lambda: announce(host.device), note)
    except HostError as error:
        # An orderly exit would wait for threads, and one may hang.
        complain(sentence(error))
        place.remove()
        os._exit(Exit.FAILED)
    return Exit.DONE


@contextlib.contextmanager
def mount_directory(chosen: str | None) -> Iterator[Place]:
    """`chosen`, or a new directory in the runtime directory, which is removed at the end."""
    from livedumpfs.mount.mountpoint import clean_up

    if chosen:
        yield Place(chosen)
        return
    runtime = runtime_directory()
    own = runtime / f"{registry.MOUNT_PREFIX}{os.getpid()}"
    clean_up(str(own))
    remove_left_behind(runtime)
    place = Place.make(own)
    try:
        yield place
    finally:
        place.remove()


def runtime_directory() -> Path:
    """The directory for hosts' mount points. HostError: it cannot be made."""
    try:
        return registry.own_directory()
    except OSError as error:
        code = error.errno or 0
        cause = error.strerror or os_cause(code)
        raise HostError(
            f"cannot make {error.filename}: {cause[0].lower()}{cause[1:]}",
            errno=code,
            hint="name a directory of this user with <mount>, or set XDG_RUNTIME_DIR to one",
        ) from error


def remove_left_behind(runtime: Path) -> None:
    """Remove this user's directories of hosts that were killed. A directory that is still mounted
    or not empty stays."""
    for path in runtime.glob(f"{registry.MOUNT_PREFIX}*"):
        pid = path.name.removeprefix(registry.MOUNT_PREFIX)
        dead = pid.isdigit() and (int(pid) == os.getpid() or registry.start_time(int(pid)) is None)
        with contextlib.suppress(OSError):
            dead = dead and path.lstat().st_uid == os.geteuid()
        if dead:
            with contextlib.suppress(OSError):
                path.rmdir()
