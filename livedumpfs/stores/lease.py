# SPDX-License-Identifier: GPL-2.0-or-later
"""Lease: the lock of a store whose place has no locks, as an object that its holder renews.

Each holder writes an object of its own below `locks/`, and looks at the others only then. Of two
that exclude each other the one that wrote last sees the other, whichever that is, so both never
hold it. A lock that was not renewed for STALE_S counts no more. Its age is the difference of two
times that the server gave: of that lock, and of the looker's own, which was written just now. So
the clocks of hosts do not matter.

The holder knows, too: it measures by its own clock, which also runs while the computer sleeps, from
before the last renewal that worked was sent. HELD_S is as much shorter than STALE_S as a request
may take. After that it writes and deletes nothing more. Before each renewal it looks whether its
lock is still there: where another process took it for over, it is lost.

A request that was given up may still be done by the server, and later. A lock under which that has
happened is not removed: it says so, and counts until it is stale.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from livedumpfs.closing import Closing
from livedumpfs.errors import LivedumpError, TargetError
from livedumpfs.proc import proc_text
from livedumpfs.stores.objects import Listed
from livedumpfs.thread import needing_threads, start_thread

FOLDER: Final = "locks/"
STALE_S: Final = 900.0
"""Seconds after which a lock that was not renewed counts no more, by the server's clock."""
HELD_S: Final = 400.0
"""Seconds after the last renewal for which the holder trusts its lock. Between the two lie the
longest request (its deadline and one try more, 420 s) and the server's clock, which counts whole
seconds."""
_RENEW_S: Final = 60.0
_GRACE_S: Final = 5.0
"""Seconds for which a server may still be busy with what a killed process has sent it."""
_LOOK_S: Final = 0.5
"""Seconds between two looks at a lock that another has, about."""
_PATIENCE_S: Final = 10.0
"""For a server that hangs, when the lock is let go."""


class LockPlace(Protocol):
    """Where the locks are."""

    @property
    def url(self) -> str:
        """For messages."""

    def put_lock(self, name: str, data: bytes) -> None:
        """Write a lock's object."""

    def delete_locks(self, names: list[str]) -> None:
        """Remove locks' objects; those that are not there are no error."""

    def locks(self) -> list[Listed]:
        """All of them."""

    def get(self, name: str) -> bytes:
        """What is in one."""


class Holder(msgspec.Struct, frozen=True):
    """What is in a lock's object."""

    host: str
    boot: str
    """Of the kernel, of the computer and of the namespace of process numbers."""
    pid: int
    begun: str
    """When the process began, in ticks of that kernel; "": not known."""
    how: Literal["shared", "alone"]
    given_up: bool = False
    """It has ended, and the server may still do what it had asked."""

    def is_dead(self) -> bool:
        """Whether the process was one of this kernel and has ended. False: not known."""
        here = self.boot == _boot() and self.host == socket.gethostname()
        return here and not self.given_up and _has_ended(self.pid, self.begun)

    def __str__(self) -> str:
        what = "gc or forget" if self.how == "alone" else "a dump or another command"
        if self.given_up:
            what = f"a request that the server may still have in hand, of {what} that has failed"
        return f"{what} (process {self.pid} on {self.host})"


class Lease(Closing):
    """Use take_lease."""

    def __init__(self, place: LockPlace, alone: bool) -> None:
        self._place, self.alone = place, alone
        # The kind is in the name, so that one list tells which exclude each other.
        self.name = f"{FOLDER}{'alone' if alone else 'shared'}-{os.urandom(8).hex()}"
        pid = os.getpid()
        holder = Holder(
            socket.gethostname(), _boot(), pid, _own_begun(), "alone" if alone else "shared"
        )
        self._data = msgspec.json.encode(holder)
        self._given_up = msgspec.json.encode(msgspec.structs.replace(holder, given_up=True))
        self._renewed = _clock()
        self._lost = ""
        self._doubtful = False
        self._end = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="livedump-lease", daemon=True)

    def write(self) -> None:
        """Make or renew it. TargetError."""
        begun = _clock()
        self._place.put_lock(self.name, self._data)
        self._renewed = begun

    def withdraw(self) -> None:
        """Remove it. TargetError."""
        self._place.delete_locks([self.name])

    def keep(self) -> None:
        """From now on a thread renews it. MachineError EAGAIN: no thread."""
        with needing_threads(f"keep the lock of {self._place.url}"):
            start_thread(self._renewer)

    def _renew(self) -> None:
        while not self._end.wait(_RENEW_S) and self.is_held():
            with suppress(LivedumpError):  # expect_held says it, when it was too long
                self.look()
                self.write()
        self._let_go()

    def look(self) -> None:
        """TargetError ESTALE: another process took it for over; or it cannot be looked for."""
        try:
            self._place.get(self.name)
        except TargetError as error:
            if error.errno != errno.ENOENT:
                raise
            self._lost = "another process took it for over"
            self.expect_held()

    def is_held(self) -> bool:
        """Whether no other process can have thought that it is over."""
        if not self._lost and _clock() - self._renewed > HELD_S:
            self._lost = f"it could not be renewed for {HELD_S:.0f} s"
        return not self._lost

    def expect_held(self) -> None:
        """TargetError ESTALE: it was not renewed for too long, or another process removed it."""
        if not self.is_held():
            raise TargetError(
                f"the lock of the store {self._place.url} was lost: {self._lost}",
                errno=errno.ESTALE,
                hint="nothing more is written or removed; run the command again",
            )

    def doubt(self) -> None:
        """A request that others must not miss was given up, and the server may still do it: the
        lock stays until it is stale."""
        self._doubtful = True

    def close(self) -> None:
        """Let go. A lock that cannot be removed becomes stale. Does not wait for a server that
        hangs."""
        self._end.set()
        if self._renewer.ident is None:
            self._let_go()
        else:
            self._renewer.join(_PATIENCE_S)

    def _let_go(self) -> None:
        """Of one thread, after the last renewal, which would bring the lock back."""
        with suppress(LivedumpError):
            if self._doubtful:
                self._place.put_lock(self.name, self._given_up)
            else:
                self.withdraw()


def take_lease(place: LockPlace, *, alone: bool, wait_s: float) -> Lease:
    """TargetError EBUSY: another process has it after `wait_s` seconds, and says which."""
    deadline = time.monotonic() + wait_s
    while True:
        lease = Lease(place, alone)
        with contextlib.ExitStack() as undo:
            lease.write()
            undo.callback(lease.close)
            other, killed = _in_the_way(place, lease)
            if other is None:
                lease.keep()
                if killed:
                    time.sleep(_GRACE_S)
                undo.pop_all()
                return lease
        if time.monotonic() >= deadline:
            raise TargetError(f"the store {place.url} is in use by {other}", errno=errno.EBUSY)
        time.sleep(_LOOK_S * (0.5 + random.random()))  # two that withdraw must not meet again


def _in_the_way(place: LockPlace, mine: Lease) -> tuple[str | None, bool]:
    """What holds the lock in a way that excludes this one; None: nothing. And whether one of a
    process that was killed was removed; stale ones are, too."""
    killed = False
    every = place.locks()
    now = next((one.changed_ns for one in every if one.name == mine.name), None)
    if now is None:
        raise TargetError(
            f"the lock of the store {place.url} has gone while it was taken",
            errno=errno.ESTALE,
            hint="a list of this store must show at once what was written",
        )
    for one in every:
        if one.name == mine.name or not (mine.alone or "/alone-" in one.name):
            continue
        holder = _holder(place, one.name)
        dead = holder is not None and holder.is_dead()
        if dead or now - one.changed_ns > STALE_S * 1e9:
            place.delete_locks([one.name])
            killed = killed or dead
            continue
        return str(holder or "a process that is not known"), killed
    return None, killed


def _holder(place: LockPlace, name: str) -> Holder | None:
    try:
        return msgspec.json.decode(place.get(name), type=Holder)
    except (TargetError, msgspec.DecodeError):
        return None


def _clock() -> float:
    """Seconds; runs on while the computer sleeps, and never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    try:
        kernel = proc_text("/proc/sys/kernel/random/boot_id").strip()
        return f"{kernel} {_computer()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return os.urandom(16).hex()  # that of no other process


def _computer() -> str:
    """Guests that were restored from one image have one boot id, but other network cards. The id of
    the machine itself is not to be shown."""
    said = [b"livedumpfs"]
    with suppress(OSError):
        said.append(Path("/etc/machine-id").read_bytes())
    for card in sorted(Path("/sys/class/net").glob("*/device")):
        with suppress(OSError):
            said.append((card.parent / "address").read_bytes())
    return hashlib.sha256(b"\0".join(said)).hexdigest()[:16]


def _has_ended(pid: int, begun: str) -> bool:
    """The process of that number which began then. Another user's may be hidden in /proc (hidepid,
    ProtectProc), but not from kill()."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    try:
        found = _begun(pid)
    except OSError:
        return False
    return found != begun and begun != ""


def _begun(pid: int) -> str:
    """Field 22 of its stat; "": it has ended, and was not waited for. OSError: it is not there, or
    hidden."""
    fields = proc_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _own_begun() -> str:
    with suppress(OSError):
        return _begun(os.getpid())
    return ""
