# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump --exclude`: makedumpfile reads the living snapshot; what it writes gets a verdict, and its
name, when makedumpfile has ended."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any, Final, Literal

from livedumpfs.abi import State, Verdict
from livedumpfs.cli import text
from livedumpfs.cli.conclusion import broken, print_pause
from livedumpfs.cli.exclude import settings_for_memory
from livedumpfs.cli.makedumpfile import FilterError, Makedumpfile, MakedumpfileRun
from livedumpfs.cli.outcome import Broken, Exit, complain, dump_taken, note
from livedumpfs.cli.outlet import NAME, STANDARD_OUTPUT, expect_writable
from livedumpfs.cli.output import OUTPUT_FD, report
from livedumpfs.cli.progress import Display, display
from livedumpfs.client import Client, DumpStatus, InitOptions
from livedumpfs.closing import Closing
from livedumpfs.dumpfile import NewFiltered, excluded_text, has_vmcoreinfo
from livedumpfs.errors import InvalidDump, MachineError, os_cause
from livedumpfs.thread import needing_threads, start_thread

_LOOK_S: Final = 0.2
"""Seconds between two looks at makedumpfile and at the dump."""
_END: Final = 16
"""Bytes of the record that ends a file in makedumpfile's flattened form."""
_PIECE: Final = 1 << 20


class _Held:
    """Copies makedumpfile's flattened form to standard output, but for its last record: without it
    no reader takes the dump for a whole one."""

    def __init__(self, stream: IO[bytes]) -> None:
        """MachineError EAGAIN: no thread."""
        self._stream, self._last = stream, b""
        self.error = 0
        """errno of the write that standard output refused; 0: none did."""
        # A daemon thread: a reader that stops reading must not keep an interrupted command alive.
        self._copier = threading.Thread(target=self._copy, name="livedump-copy", daemon=True)
        with needing_threads(f"copy to {NAME}"):
            start_thread(self._copier)

    def _copy(self) -> None:
        try:
            while data := os.read(self._stream.fileno(), _PIECE):
                data = self._last + data
                self._last = data[-_END:]
                _write(data[:-_END])
        except OSError as error:
            self.error = error.errno or 0
            self._stream.close()  # makedumpfile gets SIGPIPE

    def wait(self) -> None:
        """Until all but the last record is written."""
        self._copier.join()

    def complete(self) -> None:
        """Write the last record. OSError."""
        _write(self._last)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(OUTPUT_FD, view) :]


class Filtering(Closing):
    """One dump by makedumpfile: what it needs before INIT, its run between START and RELEASE, and
    its end after that. Closed before its end it leaves nothing."""

    def __init__(self, args: argparse.Namespace) -> None:
        """UsageError, FilterError, TargetError: all that can be refused before INIT."""
        self._settings = settings_for_memory(args)
        self._level: int = args.exclude
        self._program = Makedumpfile()
        self._compression = self._program.compression(args.compression or "")
        self._file: NewFiltered | None = None
        if args.target == STANDARD_OUTPUT:
            expect_writable()
        else:
            self._file = NewFiltered(args.target, force=args.force)
        self.name = self._file.path if self._file else NAME
        self._run: MakedumpfileRun | None = None
        self._held: _Held | None = None
        self._status: DumpStatus | None = None
        self._meta: dict[str, Any] = {}
        self._broken = ""

    def options(self, client: Client) -> InitOptions:
        """The settings of INIT. Where memory ends the machine waits, as for a target: it would lose
        pages else, which policy `fail` asks for."""
        found = dict(self._settings)
        policy = found.get("policy") or client.read("control/policy").split()[0].decode()
        if policy != "fail":
            found.setdefault("at_limit", "hold")
        return InitOptions(release_on_close=True, **found)

    def run(self, client: Client) -> None:
        """From START on: let makedumpfile read. The verdict is that of the moment after its end.
        FilterError: it failed. Broken: the snapshot did not last, or has lost what makedumpfile
        wanted to read. MachineError: no Linux."""
        before = client.status()
        print_pause(before)
        folder = os.path.realpath(os.path.join(client.mountpoint, "snapshot"))
        core = os.path.join(folder, "vmcore")
        if not has_vmcoreinfo(core):
            raise MachineError(
                "makedumpfile cannot know the pages of this machine: there is no VMCOREINFO in its "
                "memory, so its kernel is not Linux, or has not come up yet",
                hint="without --exclude all of it is dumped; --format kdump has zero pages once",
            )
        out = self._file.begin() if self._file else -1
        self._run = MakedumpfileRun(self._program, self._level, self._compression, core, out)
        if self._run.stream:
            self._held = _Held(self._run.stream)
        with display("makedumpfile") as shown:
            self._status = self._follow(client, self._run, shown, before)
        with dump_taken(None):
            self._meta = json.loads(client.read(f"dumps/{os.path.basename(folder)}/info.json"))
        self._judge(client, self._status)

    def _follow(
        self, client: Client, run: MakedumpfileRun, shown: Display, before: DumpStatus
    ) -> DumpStatus:
        """Until it has ended. The status after that."""
        said = False
        while True:
            ended = run.wait(_LOOK_S)
            with dump_taken(None):
                status = client.status()
            if not _is_same(before, status):
                raise Broken("the snapshot was released before makedumpfile had read it")
            total = status.bytes_total
            shown.update(int(total * run.share), total, status.lost)
            if ended:
                return status
            if status.broken and not said:
                said = True
                shown.warn(f"warning: {broken(client, status)}")

    def _judge(self, client: Client, status: DumpStatus) -> None:
        assert self._run
        if self._held:
            self._held.wait()
            if self._held.error:
                raise Broken(f"cannot write to {NAME}: {os_cause(self._held.error)}")
        problem = self._run.problem(self.name)
        self._broken = broken(client, status) if status.broken else ""
        if problem and self._broken:
            raise Broken(f"{self._broken}; makedumpfile cannot read lost pages")
        if problem:
            raise FilterError(problem)

    def finish(self) -> int:
        """After RELEASE: seal it, give it its name, and print the result. Returns the exit code.
        FilterError: makedumpfile has written something else; TargetError."""
        status, run = self._status, self._run
        assert status and run
        pages = run.excluded
        if not run.knows_kernel:
            note(
                f"warning: makedumpfile {self._program.version} says that it does not support the "
                "machine's kernel: it may have taken pages of one kind for another"
            )
        if self._file:
            self._seal(self._file, status, pages)
            self.name = self._file.path
        elif self._held and not self._broken:
            try:
                self._held.complete()
            except OSError as error:
                raise Broken(f"cannot write to {NAME}: {os_cause(error.errno or 0)}") from error
        rows = [row for row in text.counter_rows(status.counters) if row[0] in _ROWS]
        lost = [("lost", text.pages(self._meta.get("lost") or []))]
        ends = [("excluded", excluded_text(self._level, pages)), ("target", self.name)]
        report(text.table([*rows, *lost, *ends, ("verdict", _word(status))]))
        if self._broken:
            complain(self._broken)
            return Exit.NOT_VALID
        return Exit.DONE

    def _seal(self, file: NewFiltered, status: DumpStatus, pages: dict[str, int]) -> None:
        meta = {key: self._meta[key] for key in _KEPT if key in self._meta}
        meta |= {"excluded": pages, "makedumpfile": self._program.version}
        try:
            file.seal(
                self._level, _word(status), meta, arena_size=status.bytes_total,
                granule_size=status.counters["granule_size"],
            )  # fmt: skip
        except InvalidDump as error:
            raise FilterError(
                f"makedumpfile says nothing is wrong, but what it wrote is no dump: {error}"
            ) from error

    def close(self) -> None:
        """End makedumpfile, and take away what is not sealed; harmless when done twice."""
        if self._run:
            self._run.reap()
        if self._file:
            self._file.close()


_ROWS: Final = ("taken", "faults", "pool")
_KEPT: Final[tuple[str, ...]] = (
    "instant", "pause_ns", "policy", "backend", "arming", "host_version", "counters", "machine",
    "registers",
)  # fmt: skip


def _is_same(before: DumpStatus, now: DumpStatus) -> bool:
    """Whether it is still the snapshot of that START."""
    instants = {one.counters["instant_mono_ns"] for one in (before, now)}
    return now.state is State.START and len(instants) == 1


def _word(status: DumpStatus) -> Literal["consistent", "torn", "incomplete"]:
    if status.known is Verdict.CONSISTENT:
        return "consistent"
    return "torn" if status.known is Verdict.TORN else "incomplete"


@contextlib.contextmanager
def open_filtering(args: argparse.Namespace) -> Iterator[Filtering]:
    """While standard output takes the dump, the command's own text goes to standard error."""
    away = args.target == STANDARD_OUTPUT
    text_goes = contextlib.redirect_stdout(sys.stderr) if away else contextlib.nullcontext()
    with Filtering(args) as found, text_goes:
        yield found
