# SPDX-License-Identifier: GPL-2.0-or-later
"""`fleet scheduler`, `fleet worker`: a cluster by hand; and how other commands reach one."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.arguments import Commands, add_command, natural
from livedumpfs.cli.outcome import Exit, end_at_once, note
from livedumpfs.cli.output import say
from livedumpfs.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client

PORT: Final = 8786
SCHEDULER: Final = "LIVEDUMP_FLEET"
_ADDRESS: Final = f"address of the scheduler, HOST:PORT; default: {SCHEDULER}"


def add_commands(own: Commands) -> None:
    """Register the two."""
    scheduler = add_command(own, "scheduler", "Run a scheduler until Ctrl-C.", run_scheduler)
    scheduler.add_argument("--host", metavar="ADDRESS", help="listen only there")
    scheduler.add_argument(
        "--port", type=natural, default=PORT, metavar="N", help=f"default: {PORT}; 0: any"
    )
    _add_security(scheduler)
    _add_root(scheduler, "it")
    worker = add_command(
        own,
        "worker",
        "Run the worker beside one or several hosts, until Ctrl-C or the scheduler's end.",
        run_worker,
    )
    worker.add_argument("scheduler", metavar="SCHEDULER", nargs="?", help=_ADDRESS)
    worker.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="HOST",
        help="a host that it controls, as --device names it; may be given several times; default: "
        "all that this user may use",
    )
    worker.add_argument("--name", metavar="NAME", help="of the worker; default: its address")
    worker.add_argument(
        "--threads", type=natural, default=1, metavar="N", help="for `fleet map`; default: 1"
    )
    _add_security(worker)
    _add_root(worker)


def _add_security(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tls",
        metavar="FOLDER",
        help="with ca.pem, cert.pem and key.pem; default: LIVEDUMP_FLEET_TLS, else "
        "~/.config/livedumpfs/fleet",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="without TLS: anyone on the network may run anything on the workers",
    )


def _add_root(parser: argparse.ArgumentParser, what: str = "a worker") -> None:
    parser.add_argument(
        "--allow-root", action="store_true", help=f"{what} may run as root; it needs no rights"
    )


def add_client(parser: argparse.ArgumentParser) -> None:
    """Add what a command needs that talks to a cluster."""
    parser.add_argument("--scheduler", metavar="ADDRESS", help=_ADDRESS)
    _add_security(parser)
    _add_root(parser)


def _address(given: str | None) -> str:
    found = given or os.environ.get(SCHEDULER)
    if not found:
        raise UsageError("no scheduler is named", hint=f"give its address, or set {SCHEDULER}")
    return found


@contextlib.contextmanager
def connected(args: argparse.Namespace) -> Iterator[Client]:
    """A client of the cluster that is meant."""
    from livedumpfs.fleet.cluster import connect
    from livedumpfs.fleet.credentials import full_address, security_for

    address = full_address(_address(args.scheduler), insecure=args.insecure)
    with connect(address, security_for(args.tls, insecure=args.insecure)) as client:
        yield client


def run_scheduler(args: argparse.Namespace) -> int:
    """Serve. Credentials are made if there are none."""
    from livedumpfs.fleet.cluster import serve_scheduler
    from livedumpfs.fleet.credentials import credentials_folder, make_credentials, security_for

    if os.geteuid() == 0 and not args.allow_root:
        raise UsageError(
            "the scheduler runs as root: a client may run anything in it",
            hint="start it as another user; or allow it by <allow_root>",
        )
    folder = credentials_folder(args.tls)
    if not args.insecure and make_credentials(folder):
        note(f"made credentials in {folder}, for a year: workers and clients need a copy")
    security = security_for(args.tls, insecure=args.insecure)
    end_at_once()
    serve_scheduler(args.host, args.port, security, lambda address: _serving("scheduler", address))
    return Exit.DONE


def run_worker(args: argparse.Namespace) -> int:
    """Serve."""
    from livedumpfs.fleet.cluster import serve_worker
    from livedumpfs.fleet.credentials import full_address, security_for

    address = full_address(_address(args.scheduler), insecure=args.insecure)
    security = security_for(args.tls, insecure=args.insecure)
    end_at_once()
    serve_worker(
        address, tuple(args.host), security, lambda own: _serving("worker", own),
        name=args.name, threads=max(args.threads, 1), allow_root=args.allow_root,
    )  # fmt: skip
    return Exit.DONE


def _serving(what: str, address: str) -> None:
    say(f"{what} at {address}")
