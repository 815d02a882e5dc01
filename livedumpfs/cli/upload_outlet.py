# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump s3://BUCKET/KEY`: a dump as one object that tools open once they have it, without a file on
this computer."""

from __future__ import annotations

import argparse
import contextlib
import errno
from collections.abc import Iterator
from typing import Any, Final

from livedumpfs.cli.outcome import sentence
from livedumpfs.cli.outlet import PipedOutlet
from livedumpfs.errors import LivedumpError, TargetError, UsageError

FORMATS: Final = ("elf", "kdump")
"""Those that a pipe takes."""
_SCHEMES: Final = ("s3://", "s3a://")
_PATIENCE_S: Final = 5.0
"""For a server that hangs, after a dump that was broken off."""


def goes_to_object(args: argparse.Namespace) -> bool:
    """Whether TARGET is an object. UsageError: some options do not go with it, or it is of a kind
    that cannot take a dump."""
    target = args.target or ""
    if "://" not in target or target.startswith("store:"):
        return False
    if not target.startswith(_SCHEMES):
        raise UsageError(
            f"a dump as one object goes to s3://BUCKET/KEY, not to {target.partition('://')[0]}://",
            hint="dump store:PLACE takes all kinds of object stores",
        )
    for given, flag, why in (
        (args.hold, "--hold", "what has left by a pipe cannot be read in snapshot/"),
        (args.exclude, "--exclude", "makedumpfile writes a file"),
        (args.keep, "--keep", "that is for files; a rule of the bucket can remove objects"),
        (args.buffered, "--buffered", "it is for files and devices"),
    ):
        if given:
            raise UsageError(f"{flag} does not go with an object", hint=why)
    args.format = args.format or "elf"
    if args.format not in FORMATS:
        raise UsageError(f"an object takes dumps of format elf or kdump, not {args.format}")
    return True


class UploadOutlet(PipedOutlet):
    """A dump on its way to an object."""

    def __init__(self, file: Any) -> None:
        """`file`: an S3File. MachineError EAGAIN: no thread."""
        self._file = file
        self._error: BaseException | None = None
        super().__init__(file.url, f"write {file.url}", "livedump-object")

    def _take(self, pipe: int) -> None:
        from livedumpfs.stores.flattened import read_records, widen

        try:
            widen(pipe)
            read_records(pipe, self._file.write)
            self._file.finish()
        except BaseException as error:  # whatever it was: there is no object
            self._error = error

    def finish(self) -> str:
        """Wait until the object is there."""
        self.handed_over()
        self._pipe.join(_PATIENCE_S if self.broken_off else None)
        return self.problem

    @property
    def problem(self) -> str:
        """Why there is no object, known before the host gets EPIPE; "": there is, or will be."""
        return f"no dump on {self.alias}: {sentence(self._error)}" if self._error else ""


@contextlib.contextmanager
def open_upload_outlet(args: argparse.Namespace) -> Iterator[UploadOutlet]:
    """The outlet for the object TARGET. TargetError: it cannot be written, or is there already."""
    from livedumpfs.stores.s3_file import S3File

    with S3File(args.target, force=bool(args.force)) as file:
        args.force = None  # it is said of the object, not of the pipe
        out = UploadOutlet(file)
        try:
            yield out
        except LivedumpError as error:
            if error.errno == errno.EPIPE and out.problem:  # the host knows only its pipe
                raise TargetError(out.problem, errno=errno.EPIPE) from error
            error.message = error.message.replace(out.path or "", file.url)
            raise
        finally:
            out.handed_over()
