# SPDX-License-Identifier: GPL-2.0-or-later
"""Shim: the C core inside a QEMU process, spoken to over sockets (native/shim/shim.h)."""

from __future__ import annotations

import array
import contextlib
import errno
import queue
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from livedumpfs.closing import Closing
from livedumpfs.core.capi import CData, ffi, lib
from livedumpfs.errors import MachineError, UsageError, os_cause
from livedumpfs.thread import start_thread

READ_MOST: Final = 128 << 10
"""Bytes of one read."""
_CONNECTIONS: Final = 4
_ANSWER_S: Final = 30.0
"""Longest that a request takes."""
_LEAST_S: Final = 1e-3
"""A socket takes 0 for another thing."""
_INIT_RATE: Final = 1 << 30
"""Bytes of memory for each second more that INIT gets. Measured: 3 to 8 times that in a second."""
_URGENT: Final = frozenset({lib.LDFS_SHIM_RELEASE, lib.LDFS_SHIM_LAST_WORDS})
"""What never waits behind reads of a target that hangs. START does not either, and RELEASE not
behind START: it has a connection of its own too."""
_REPLY_SIZE: Final = ffi.sizeof("ldfs_shim_reply")
_MESSAGE_MOST: Final = _REPLY_SIZE + lib.LDFS_SHIM_PAYLOAD


def init_seconds(size: int) -> float:
    """What INIT of `size` bytes of memory may take at the most, without its target."""
    return size / _INIT_RATE


def refused(code: int, doing: str, hint: str = "") -> MachineError:
    """What to raise for an answer below 0: that QEMU has gone, does not answer, or its errno.
    `doing`: "prepare the dump"."""
    if code == -errno.ECONNRESET:
        cause, hint = "QEMU has ended", "the guest has gone with it; start it anew"
    elif code == -errno.ETIMEDOUT:
        cause, hint = "the shim in QEMU does not answer", hint or "QEMU may hang"
    else:
        cause = os_cause(-code)
    return MachineError(f"cannot {doing}: {cause}", errno=-code, hint=hint)


class Answer(NamedTuple):
    """0 or -errno, what came with it, and the number of the dump that INIT made."""

    code: int
    data: bytes = b""
    dump: int = 0


class _Request(NamedTuple):
    operation: int
    arguments: tuple[int, int] = (0, 0)
    payload: bytes = b""
    fds: Sequence[int] = ()
    dump: int = 0


class Shim(Closing):
    """The host's side. Any thread may call; requests go over as many connections as are free, and
    what the guest stands still for over others."""

    def __init__(self, first: socket.socket) -> None:
        """`first`: the connection that the shim made; ours from the call on.
        MachineError: the other side does not answer, or was built from another tree."""
        self._free: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._urgent: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._starting: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._owed: queue.SimpleQueue[tuple[queue.SimpleQueue[socket.socket], socket.socket]]
        self._owed = queue.SimpleQueue()
        """Connections that answered no more, and where others for them belong."""
        self._first = first
        self._connecting = threading.Lock()
        self._all = [first]
        self._closed = False
        self._size = 0
        try:
            first.settimeout(_ANSWER_S)
            self._hello(first)
            for _ in range(_CONNECTIONS):
                self._free.put(self._connect())
            self._urgent.put(self._connect())
            self._starting.put(self._connect())
        except OSError as error:  # MachineError too
            self.close()
            if isinstance(error, TimeoutError):
                raise MachineError(
                    "the shim in QEMU does not answer", errno=errno.ETIMEDOUT
                ) from error
            if error.errno in (errno.ECONNRESET, errno.EPIPE):
                raise MachineError("QEMU ended at once", errno=errno.ECONNRESET) from error
            if not isinstance(error, MachineError):  # no descriptors left, say
                raise refused(-(error.errno or errno.EIO), "speak with QEMU") from error
            raise
        except BaseException:
            self.close()
            raise

    def _hello(self, sock: socket.socket) -> None:
        hello = _Request(lib.LDFS_SHIM_HELLO, (lib.LDFS_SHIM_VERSION, 0))
        code = _exchange(sock, hello, _ANSWER_S).code
        if code:
            raise MachineError(
                "the shim in QEMU speaks another version", errno=-code, hint="run `make` anew"
            )

    def _connect(self) -> socket.socket:
        """One more connection. MachineError, OSError: QEMU has gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.settimeout(_ANSWER_S)
            self._all.append(ours)
            request = _Request(lib.LDFS_SHIM_CONNECT, fds=(theirs.fileno(),))
            with self._connecting:
                code = _exchange(self._first, request, _ANSWER_S).code
        if code:
            raise MachineError("the shim in QEMU takes no connection", errno=-code)
        return ours

    def call(
        self,
        operation: int,
        first: int = 0,
        second: int = 0,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        dump: int = 0,
        within: float | None = None,
    ) -> Answer:
        """One request, about that dump. -ECONNRESET: QEMU has gone; -ETIMEDOUT: no answer in time
        (`within` seconds in all, or what such a request may take), as when the target's I/O hangs,
        and there will be none."""
        request = _Request(operation, (first, second), payload, fds, dump)
        free = self._urgent if operation in _URGENT else self._free
        if operation == lib.LDFS_SHIM_START:
            free = self._starting
        self._replace_owed(free)
        patience = self._patience(operation)
        began = time.monotonic()
        sock: socket.socket | None
        try:
            sock = free.get(timeout=_ANSWER_S if within is None else within)
        except queue.Empty:
            return Answer(-errno.ETIMEDOUT)
        if within is not None:
            patience = max(within - (time.monotonic() - began), _LEAST_S)
        try:
            return _exchange(sock, request, patience)
        except TimeoutError:
            answer = _last_chance(sock)
            if within is None:
                sock = self._replace(sock)
                return answer
            # A caller without more time has none for the next connection either.
            lost, sock = sock, None
            self._replace_later(free, lost)
            return answer
        except (OSError, MachineError):
            # Also when this connection alone broke: what is said of QEMU must be true.
            self.close()
            return Answer(-errno.ECONNRESET)
        except BaseException:  # its answer would be taken for the next one's
            sock = self._replace(sock)
            raise
        finally:
            if sock is not None:
                free.put(sock)

    def _replace_later(self, free: queue.SimpleQueue[socket.socket], lost: socket.socket) -> None:
        """On a thread; without one, by the next call that wants a connection of that kind."""
        thread = threading.Thread(target=self._put_another, args=(free, lost), daemon=True)
        try:
            start_thread(thread)
        except RuntimeError:
            self._owed.put((free, lost))

    def _replace_owed(self, wanted: queue.SimpleQueue[socket.socket]) -> None:
        for _ in range(self._owed.qsize()):
            with contextlib.suppress(queue.Empty):
                free, lost = self._owed.get_nowait()
                if free is wanted:
                    self._put_another(free, lost)
                else:
                    self._owed.put((free, lost))

    def _put_another(self, free: queue.SimpleQueue[socket.socket], lost: socket.socket) -> None:
        free.put(self._replace(lost))

    def _patience(self, operation: int) -> float | None:
        """Seconds to wait for the answer. A pipe's reader may stand still for as long as it likes;
        RELEASE ends that. INIT looks at every page."""
        if operation == lib.LDFS_SHIM_RECORD:
            return None
        return _ANSWER_S + (init_seconds(self._size) if operation == lib.LDFS_SHIM_INIT else 0)

    def _replace(self, sock: socket.socket) -> socket.socket:
        """Another connection for one that never answered: what comes over it later would be taken
        for the answer to another request. When there is none all are closed: from then on calls
        say that QEMU has gone, and its memory is indeed free."""
        self._all.remove(sock)
        sock.close()
        try:
            return self._connect()
        except (OSError, MachineError):
            self.close()
            return sock

    def adopt(self, address: int, size: int, memfd: int) -> None:
        """The memory that is to be dumped: a shared mapping in QEMU. UsageError: it is of a kind
        that cannot be dumped; MachineError."""
        code = self.call(lib.LDFS_SHIM_ADOPT, address, size, fds=(memfd,)).code
        self._size = size
        if code == -errno.EMEDIUMTYPE:
            raise UsageError(
                "the guest's memory is a file on a disk: it cannot be write-protected page by page",
                hint="use -object memory-backend-memfd, or a file on a tmpfs or hugetlbfs",
            )
        if code:
            raise refused(code, f"watch QEMU's memory at {address:#x}")

    def last_words(
        self, text: bytes, fd: int, within: float = 0, threads: Sequence[int] = ()
    ) -> None:
        """What the shim is to write to `fd` should we die without another word, or have none for
        `within` seconds (0: for ever); b"": nothing. `threads`: which of its process it lowers
        before that, and at the next call, where we have raised them. MachineError."""
        fds = (fd,) if text else ()
        limit, ids = int(within * 1e9), array.array("i", threads)
        payload = text + ids.tobytes()
        code = self.call(lib.LDFS_SHIM_LAST_WORDS, limit, len(ids), payload, fds).code
        if code:
            raise refused(code, "leave QEMU its last words")

    def close(self) -> None:
        """Hang up: QEMU's memory is free after that, whatever was under way."""
        if not self._closed:
            self._closed = True
            for sock in tuple(self._all):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for an answer
                sock.close()


def pack(pointer: CData) -> bytes:
    """The bytes of the struct that a cffi pointer points to."""
    return bytes(ffi.buffer(pointer))


def _exchange(sock: socket.socket, asked: _Request, patience: float | None) -> Answer:
    """OSError, TimeoutError; MachineError: QEMU has gone."""
    request = ffi.new("ldfs_shim_request *")
    request.op, request.size, request.dump = asked.operation, len(asked.payload), asked.dump
    request.arg = asked.arguments
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", asked.fds))
    sock.settimeout(patience)
    sock.sendmsg([pack(request), asked.payload], [rights] if asked.fds else [])
    return _read_answer(sock, 0)


def _read_answer(sock: socket.socket, flags: int) -> Answer:
    data = sock.recv(_MESSAGE_MOST, flags)
    if len(data) < _REPLY_SIZE:
        raise MachineError("QEMU has gone", errno=errno.ECONNRESET)
    reply = ffi.from_buffer("ldfs_shim_reply *", data[:_REPLY_SIZE])
    return Answer(int(reply.rc), data[_REPLY_SIZE : _REPLY_SIZE + int(reply.size)], int(reply.dump))


def _last_chance(sock: socket.socket) -> Answer:
    """The answer that came at the very end of the wait: the shim believes that we have it. After
    the shutdown it can send none, knows that, and takes back what it has done."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
        return _read_answer(sock, socket.MSG_DONTWAIT)
    except (OSError, MachineError):
        return Answer(-errno.ETIMEDOUT)
