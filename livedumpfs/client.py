# SPDX-License-Identifier: GPL-2.0-or-later
"""The client side of the ioctl interface: what a program does with the dump of a host process.

Long steps are started asynchronously and polled: a process that is killed inside an ioctl on a FUSE
mount stays until the host answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from livedumpfs import abi
from livedumpfs.abi import Ended, InitFlag, State, SweepFlag, Verdict
from livedumpfs.answers import put_id
from livedumpfs.by_dump_id import ByDumpId
from livedumpfs.closing import Closing
from livedumpfs.errors import (
    HostError,
    InconsistentDump,
    LivedumpError,
    StateError,
    TargetError,
    UsageError,
    os_cause,
    split_hint,
)
from livedumpfs.hosts.device import DEAD, find_device, refuse_other_files, unreachable
from livedumpfs.hosts.mount_files import MountFiles
from livedumpfs.kinds import Choice, FilePath
from livedumpfs.option import Option
from livedumpfs.request import fill_init, read_status
from livedumpfs.settings import OPTIONS
from livedumpfs.units import PAGE_SIZE

POLL_INTERVAL = 0.1
"""Seconds between two polls of a running dump."""
_WRONG_STATE = (
    errno.EINVAL,
    errno.EBUSY,
    errno.ECANCELED,
    errno.ESTALE,
    errno.ETIME,
    errno.EINPROGRESS,
)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class FirstFailure:
    """The first error of a dump."""

    operation: int
    """enum ldfs_operation."""
    errno: int
    pfn: int | None
    """Number of the first page concerned; None: not known."""


@dataclass(frozen=True)
class DumpStatus:
    """The status of the present dump, or of the last one. Sizes in bytes, times in ns, counts in
    granules."""

    state: State
    verdict: Verdict
    """The final verdict; NONE: there is none yet, or no dump."""
    so_far: Verdict
    """The verdict that the dump would get now, from START on; TORN and INCOMPLETE stay."""
    settings: dict[str, Any]
    """The settings that INIT took, by the names of DumpSettings, as far as STATUS has them. A value
    is None when the host is too old to say."""
    bytes_total: int
    bytes_done: int
    """Bytes that the dump has; lost ones are not among them."""
    failure: FirstFailure | None
    target: str | None
    ended: Ended
    """Why the dump has ended."""
    counters: dict[str, int]
    """The counters of abi.STATUS_COUNTERS."""

    @property
    def lost(self) -> int:
        """Bytes of lost granules."""
        return self.counters["lost"] * self.counters["granule_size"]

    @property
    def known(self) -> Verdict:
        """The final verdict if there is one, else `so_far`."""
        return self.so_far if self.verdict is Verdict.NONE else self.verdict

    @property
    def broken(self) -> bool:
        """Whether the dump is not consistent, or cannot become so."""
        return self.known in (Verdict.TORN, Verdict.INCOMPLETE)

    @property
    def finished(self) -> bool:
        """Whether the dump is sealed and has a verdict."""
        return self.state is State.FINISH


class InitOptions:
    """The settings of a typed INIT, by the names of DumpSettings, as far as struct livedump_init
    has a member for them. A setting that is None, 0 or not given is as set in control/."""

    def __init__(
        self, *, release_on_close: bool = False, rows: Sequence[Option] = OPTIONS, **values: Any
    ) -> None:
        """A choice may be given as text, as its enum value of abi, or as its number. TypeError: no
        such option; UsageError: an unknown choice."""
        self.rows = [one for one in rows if one.ioctl]
        unknown = values.keys() - {one.name for one in self.rows}
        if unknown:
            raise TypeError(f"INIT has no {', '.join(sorted(unknown))}")
        self.release_on_close = release_on_close
        self.values = {
            one.name: _word(one, values[one.name]) for one in self.rows if one.name in values
        }

    def fill(self, request: abi.Init) -> None:
        """Write the settings into the struct. TargetError: a path too long, or with a NUL."""
        if self.release_on_close:
            request.flags |= InitFlag.RELEASE_ON_CLOSE
        fill_init(request, self.values, self.rows)
        for one in self.rows:
            if isinstance(one.kind, FilePath) and self.values.get(one.name):
                setattr(request, one.ioctl or "", _path(self.values[one.name]))


def _word(one: Option, value: Any) -> Any:
    """The word of a choice; other values as they are."""
    if not isinstance(one.kind, Choice) or not value:
        return value
    if isinstance(value, int):
        try:
            return one.kind.from_ioctl(value)
        except ValueError:
            value = str(int(value))
    one.check(value)
    return value


class Client(ByDumpId, MountFiles, Closing):
    """An open livedump file. Closing it releases a dump that was initialised with release_on_close.

    Each method raises a LivedumpError with the host's own sentence and errno.
    """

    def __init__(self, device: str | None = None) -> None:
        """Open the device; see find_device. HostError: it does not exist, is not a livedump file,
        or its host is dead."""
        self.device = find_device(device)
        self.mountpoint = os.path.dirname(os.path.abspath(self.device))
        self._fd = -1
        try:
            # O_NONBLOCK: the open of a FIFO must not wait.
            self._fd = os.open(self.device, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            refuse_other_files(self._fd, self.device)
            self.status()
        except OSError as error:
            self.close()
            raise unreachable(self.device, error) from error

    def close(self) -> None:
        """Close; harmless when done twice."""
        if self._fd >= 0:
            # Errors of a dead host do not matter; the descriptor is closed all the same.
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._fd = -1

    # ---------------------------------------------------------------- steps

    def init(
        self, target: str | None, options: InitOptions | None = None, *, as_set: bool = False
    ) -> None:
        """INIT on `target`, a path as this process sees it. None: memory only, or with `as_set` the
        target in control/output.

        TargetError: the target cannot take the dump. StateError: EBUSY, there is a dump already.
        """
        request = self._init_request(target, options, as_set=as_set)
        self._ioctl(abi.INIT_TYPED, bytearray(request), TargetError)

    def init_as(
        self,
        dump_id: bytes | None,
        target: str | None,
        options: InitOptions | None = None,
        *,
        as_set: bool = False,
        since: bytes = b"",
    ) -> bytes:
        """INIT under that id of 16 bytes; None: the host chooses one. May be done twice. The id.
        `since`: one of bases(), what did not change since is left out; `target` is a pipe.

        As init(), and StateError: ESTALE, the dump with that id was released.
        """
        return self._init_under(dump_id, self._init_request(target, options, as_set=as_set), since)

    def _init_request(
        self, target: str | None, options: InitOptions | None, *, as_set: bool
    ) -> abi.Init:
        request = abi.Init(version=abi.VERSION)
        if target is None and as_set:
            pass  # neither a path nor NO_TARGET: the host uses control/output
        elif target is None:
            request.flags = InitFlag.NO_TARGET
        elif not target:
            raise UsageError("the target's path is empty", errno=errno.ENOENT)
        else:
            request.path = _path(target)
        (options or InitOptions()).fill(request)
        return request

    def start(self) -> None:
        """START: the snapshot instant. StateError: not initialised."""
        self._ioctl(abi.START, None, HostError)

    def sweep(self) -> None:
        """SWEEP: begin to save the rest, and return. StateError: not started."""
        request = abi.Sweep(version=abi.VERSION, flags=SweepFlag.ASYNC)
        self._ioctl(abi.SWEEP_TYPED, bytearray(request), HostError)

    def release(self) -> None:
        """RELEASE, in any state."""
        self._ioctl(abi.RELEASE, None, HostError)

    # -------------------------------------------------------------- watching

    def status(self) -> DumpStatus:
        """The status now."""
        buffer = bytearray(abi.payload_size(abi.STATUS))
        self._ioctl(abi.STATUS, buffer, HostError)
        return self._status_of(abi.Status.from_buffer(buffer))

    def status_as(self, dump_id: bytes) -> DumpStatus:
        """The status of the dump with that id, also after its RELEASE. StateError ESTALE: this
        host has another dump now, or has not had that one."""
        request = abi.StatusId(status=abi.Status(version=abi.VERSION))
        put_id(request, dump_id)
        buffer = bytearray(request)
        self._by_id(abi.STATUS_ID, buffer, HostError)
        return self._status_of(abi.StatusId.from_buffer(buffer).status)

    def _status_of(self, raw: abi.Status) -> DumpStatus:
        failure = None
        if raw.failure.error:
            pfn = None if raw.failure.pfn == abi.NO_PFN else raw.failure.pfn
            failure = FirstFailure(raw.failure.operation, raw.failure.error, pfn)
        return DumpStatus(
            state=State(raw.state),
            verdict=Verdict(raw.verdict),
            so_far=Verdict(raw.so_far),
            settings=read_status(raw),
            bytes_total=raw.bytes_total,
            bytes_done=raw.bytes_done,
            failure=failure,
            target=os.fsdecode(raw.target) or None,
            ended=Ended(raw.ended),
            counters={name: getattr(raw, name) for name in abi.STATUS_COUNTERS},
        )

    def progress(
        self, interval: float = POLL_INTERVAL, timeout: float | None = None
    ) -> Iterator[DumpStatus]:
        """The status every `interval` seconds until the dump is finished; that status is the last.

        StateError: EINVAL, no sweep is under way; ECANCELED, the dump was released. HostError:
        ETIMEDOUT after `timeout` seconds; the dump goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        first = True
        while True:
            status = self.status()
            if status.state not in (State.SWEEP, State.FINISH):
                if first:
                    raise StateError("no sweep is under way", errno=errno.EINVAL)
                raise StateError("the dump was released meanwhile", errno=errno.ECANCELED)
            yield status
            if status.finished:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise HostError(
                    f"the dump is not finished after {timeout:g} s",
                    errno=errno.ETIMEDOUT,
                    hint="it goes on",
                )
            first = False
            time.sleep(interval)

    def finish(self, timeout: float | None = None, *, check: bool = True) -> DumpStatus:
        """Wait for the verdict; `timeout` in seconds. Errors as in progress(), and InconsistentDump
        (OSError): the verdict is not CONSISTENT. With check=False that status is returned, too."""
        *_, last = self.progress(timeout=timeout)
        if check and last.broken:
            raise self._inconsistent(last)
        return last

    def _inconsistent(self, status: DumpStatus) -> InconsistentDump:
        counters = status.counters
        return InconsistentDump.of(
            status.known.name.lower(),
            status.target,
            self.stats().get("reason"),
            status.failure.errno if status.failure else 0,
            granules=(counters["granules"], counters["lost"], counters["remaining"]),
            pages=counters["granule_size"] // PAGE_SIZE,
        )

    def error(self) -> str:
        """The host's sentence about the last error of this thread; "" when there is none."""
        with contextlib.suppress(LivedumpError):
            return self.read("control/error").decode(errors="backslashreplace").strip()
        return ""

    def _ioctl(self, command: int, payload: bytearray | None, kind: type[LivedumpError]) -> None:
        try:
            _ioctl(self._fd, command, payload)
        except OSError as error:
            code = error.errno or errno.EIO
            if code in (*DEAD, errno.ENOTTY):
                raise unreachable(self.device, error) from error
            raise self._explain(code, kind) from error

    def _explain(self, code: int, kind: type[LivedumpError]) -> LivedumpError:
        """The exception with the host's sentence; StateError when the order of the steps was
        wrong."""
        message, hint = split_hint(self.error() or _unexplained(self.device, code))
        if kind is TargetError and code == errno.EBUSY:
            wrong = self.status().state not in (State.UNDEFINED, State.UNINIT)
        else:
            wrong = kind is HostError and code in _WRONG_STATE
        return (StateError if wrong else kind)(message, errno=code, hint=hint)


def _ioctl(fd: int, command: int, payload: bytearray | None) -> None:
    """ioctl(2) by ctypes, without the GIL. fcntl.ioctl keeps it when the payload is longer than 1
    KiB, and stops all threads of the process: one of them may be the host. OSError."""
    argument = None if payload is None else (ctypes.c_char * len(payload)).from_buffer(payload)
    if _libc.ioctl(fd, ctypes.c_ulong(command), argument) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os_cause(code))


def _path(path: str) -> bytes:
    """A path as bytes for a struct. TargetError: ENAMETOOLONG; EINVAL, there is a NUL in it."""
    data = os.fsencode(path)
    if len(data) >= abi.PATH_MAX:
        raise TargetError(
            f"cannot open {path[:60]}...: {os_cause(errno.ENAMETOOLONG)}", errno=errno.ENAMETOOLONG
        )
    if b"\0" in data:
        raise TargetError(f"cannot open {path!r}: it has a NUL in it", errno=errno.EINVAL)
    return data


def _unexplained(device: str, code: int) -> str:
    """The sentence for a host that fails without one; most likely it is ending."""
    why = "its machine has ended" if code == errno.ECONNRESET else "it may be ending"
    return f"the host of {device} does not say what failed: {os_cause(code)} ({why})"
