# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump STORE`: the host writes into a pipe, and this process puts what comes into the store."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any, Final

from livedumpfs.cli import text
from livedumpfs.cli.arguments import size
from livedumpfs.cli.identity import add_recipients
from livedumpfs.cli.outcome import note, sentence
from livedumpfs.cli.outlet import STANDARD_OUTPUT, Outlet
from livedumpfs.cli.output import report
from livedumpfs.errors import LivedumpError, TargetError, UsageError
from livedumpfs.settings import OPTION
from livedumpfs.units import format_size

_SCHEME: Final = "store:"
_FORMAT: Final = "elf"
_LAYOUTS: Final = ("castr", "packs")
_DIGESTS: Final = ("sha256", "sha512_256")
_FOR_HOSTS_TARGET: Final = ("force", "buffered")
"""Options about a target that the host opens."""
_PATIENCE_S: Final = 5.0
"""For a store that hangs, after a dump that was broken off."""


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the options of a store that this dump makes: `--chunk-size`, `--digest`,
    `--layout`, `--recipient`."""
    parser.add_argument(
        "--chunk-size",
        type=size,
        metavar="SIZE",
        help="of a store that this dump makes: a power of two from 64K to 1M; default: 64K",
    )
    parser.add_argument(
        "--digest",
        choices=_DIGESTS,
        help="of a store that this dump makes: the hash that names its chunks; default: sha256",
    )
    parser.add_argument(
        "--layout",
        choices=_LAYOUTS,
        help="of a store that this dump makes: castr, a file for each chunk, which casync reads; "
        "packs, many chunks in an object; default: packs in an object store, or with --recipient",
    )
    add_recipients(parser)


def goes_to_store(args: argparse.Namespace) -> bool:
    """Whether TARGET is a store. Then the options are fitted to it. UsageError: some do not go with
    it."""
    if not _is_store(args.target):
        for given, flag in (
            (args.chunk_size, "--chunk-size"),
            (args.digest, "--digest"),
            (args.layout, "--layout"),
        ):
            if given:
                raise UsageError(f"{flag} goes with a store", hint="dump store:FOLDER")
        if args.recipients and args.target != STANDARD_OUTPUT:
            raise UsageError("--recipient goes with a store, or with - (standard output)")
        return False
    for name in _FOR_HOSTS_TARGET:
        if getattr(args, name):
            raise UsageError(f"{OPTION[name].flag} does not go with a store")
    for given, flag, why in (
        (args.hold, "--hold", "what has left by a pipe cannot be read in snapshot/"),
        (args.exclude, "--exclude", "makedumpfile writes a file"),
        (args.keep, "--keep", "livedump forget removes dumps of a store"),
    ):
        if given:
            raise UsageError(f"{flag} does not go with a store", hint=why)
    if args.format not in (None, _FORMAT):
        raise UsageError(
            f"a store takes dumps of format {_FORMAT}, not {args.format}",
            hint="livedump convert makes others of them",
        )
    args.format = _FORMAT
    return True


def _is_store(target: str | None) -> bool:
    if target is None or not (target.startswith(_SCHEME) or "#" in target or os.path.isdir(target)):
        return False
    from livedumpfs.stores import takes_dumps

    return takes_dumps(target)


class StoreOutlet(Outlet):
    """A dump on its way into a store."""

    def __init__(self, reception: Any, url: str, tracks: bool) -> None:
        super().__init__(reception.path)
        self.alias = url
        self._reception = reception
        if reception.base:
            self.since = reception.base.block.dump_id
        self.all_read = reception.all_read if tracks else ""

    def handed_over(self) -> None:
        """Wait until the store has seen that it can take the dump. Raises why it cannot."""
        self._reception.handed_over()

    def finish(self) -> str:
        """Wait until the dump is published, and print what it is called."""
        try:
            done = self._reception.finish(_PATIENCE_S if self.broken_off else None)
        except Exception as error:
            return self._refusal(error)
        record = done.record
        new = f"{text.count(record.new_chunks, 'new chunk')} of {done.chunks}"
        rows = [("dump", done.name), ("store", f"{new}, {format_size(record.new_bytes)} added")]
        if record.since:
            rows.append(("unchanged", f"{text.count(done.taken, 'chunk')}, as in {self._base}"))
        report(text.table(rows))
        return ""

    @property
    def _base(self) -> str:
        return str(self._reception.base.name) if self._reception.base else ""

    def _refusal(self, error: Exception) -> str:
        return f"no dump was added to {self.alias}: {sentence(error)}"

    @property
    def problem(self) -> str:
        """Why the store takes no more, known before the host gets EPIPE; "": it does."""
        error = self._reception.error
        return self._refusal(error) if error else ""


@contextlib.contextmanager
def open_store_outlet(args: argparse.Namespace) -> Iterator[StoreOutlet]:
    """The outlet for the store TARGET, which is made where there is nothing. TargetError;
    UsageError: the granule does not fit it."""
    from livedumpfs.stores.reception import Reception

    with _open(args) as store:
        _fit_granule(args, store.about.chunk_size)
        bases = _bases(args)
        with Reception(store, bases=bases or (), identity=_identity(args)) as reception:
            out = StoreOutlet(reception, args.target, bases is not None)
            try:
                yield out
            except LivedumpError as error:
                if error.errno == errno.EPIPE and out.problem:  # the host knows only its pipe
                    raise TargetError(out.problem, errno=errno.EPIPE) from error
                error.message = error.message.replace(reception.path, args.target)
                raise


def _open(args: argparse.Namespace) -> Any:
    from livedumpfs.client import Client
    from livedumpfs.stores.receive import store_for_dump

    Client(args.device).close()  # without a host no store is made
    store, is_new = store_for_dump(
        args.target,
        args.chunk_size,
        args.granule or 0,
        digest=args.digest,
        layout=args.layout,
        recipients=args.recipients,
    )
    if is_new:
        note(f"made the store {store.url}")
    return store


def _bases(args: argparse.Namespace) -> list[bytes] | None:
    """Those that the host has; None: it does not track."""
    from livedumpfs.client import Client

    with Client(args.device) as client:
        return client.tracked_bases()


def _identity(args: argparse.Namespace) -> str:
    """Of a machine that does not know its own: as the user names it; "": only its process has a
    number."""
    from livedumpfs.client import Client
    from livedumpfs.hosts.registry import mount_identity

    if args.attach is not None:
        return os.path.abspath(str(args.attach))
    if args.libvirt is not None:
        return str(args.libvirt)
    with Client(args.device) as client:
        return mount_identity(str(client.mountpoint))


def _fit_granule(args: argparse.Namespace, chunk_size: int) -> None:
    """The host's own is CHUNK_SIZES[0] at the least."""
    from livedumpfs.stores import CHUNK_SIZES

    if not args.granule and chunk_size > CHUNK_SIZES[0]:
        args.granule = chunk_size
