# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of the sockets to QEMU, with a shim that does not always answer."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from livedumpfs.core.capi import ffi, lib
from livedumpfs.errors import MachineError
from livedumpfs.machines import shim as module
from livedumpfs.machines.shim import Shim, pack

DEADLINE_S = 300.0


class Other:
    """QEMU's end: a thread for each connection, as there."""

    def __init__(self) -> None:
        self.ours, self.first = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.hung = threading.Event()
        self.asked = threading.Semaphore(0)
        """Once for each request that waits for `hung`."""
        self.connects = True
        self.version = lib.LDFS_SHIM_VERSION
        self._threads: list[threading.Thread] = []
        self._serve(self.first)

    def _serve(self, sock: socket.socket) -> None:
        self._threads.append(threading.Thread(target=self._main, args=(sock,)))
        self._threads[-1].start()

    def _main(self, sock: socket.socket) -> None:
        with sock:
            while True:
                try:
                    data, fds, _, _ = socket.recv_fds(sock, 1 << 16, 4)
                except ConnectionResetError:  # closed before it took the last answer
                    return
                if not data:
                    return
                request = ffi.from_buffer("ldfs_shim_request *", data)
                reply = ffi.new("ldfs_shim_reply *")
                if request.op == lib.LDFS_SHIM_HELLO:
                    reply.rc = 0 if request.arg[0] == self.version else -errno.EPROTO
                elif request.op == lib.LDFS_SHIM_CONNECT:
                    if self.connects:
                        self._serve(socket.socket(fileno=fds[0]))
                    else:
                        reply.rc = -errno.ENOMEM
                elif request.op in (lib.LDFS_SHIM_READ, lib.LDFS_SHIM_RECORD):
                    self.asked.release()
                    self.hung.wait(DEADLINE_S)
                elif request.op == lib.LDFS_SHIM_COUNTERS:
                    reply.rc = -errno.ENODATA
                try:
                    sock.sendall(pack(reply))
                except OSError:
                    return

    def expect_asked(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.asked.acquire(timeout=DEADLINE_S)

    def end(self) -> None:
        self.hung.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


@pytest.fixture
def other() -> Iterator[Other]:
    made = Other()
    yield made
    made.end()


def test_reads_that_hang_keep_nothing_else(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    with Shim(other.ours) as shim:
        monkeypatch.setattr(module, "_ANSWER_S", 3.0)  # time for what is to be done meanwhile
        readers = [
            threading.Thread(target=shim.call, args=(lib.LDFS_SHIM_READ, 0, 4096))
            for _ in range(module._CONNECTIONS)
        ]
        for reader in readers:
            reader.start()
        other.expect_asked(len(readers))
        assert shim.call(lib.LDFS_SHIM_RELEASE)[0] == 0
        shim.last_words(b"", -1)  # what the end of the host says
        assert all(reader.is_alive() for reader in readers)
        for reader in readers:
            reader.join(DEADLINE_S)
            assert not reader.is_alive()
        # Answers to the reads come when no thread waits for them any more.
        other.hung.set()
        found = {shim.call(lib.LDFS_SHIM_COUNTERS)[0] for _ in range(3 * module._CONNECTIONS)}
        assert found == {-errno.ENODATA}


def test_what_cannot_be_reached_any_more_is_hung_up(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side then frees everything: as gone as we say it is."""
    with Shim(other.ours) as shim:
        monkeypatch.setattr(module, "_ANSWER_S", 0.2)
        other.connects = False
        assert shim.call(lib.LDFS_SHIM_READ, 0, 4096)[0] == -errno.ETIMEDOUT
        assert shim.call(lib.LDFS_SHIM_RELEASE)[0] == -errno.ECONNRESET
        assert shim.call(lib.LDFS_SHIM_COUNTERS)[0] == -errno.ECONNRESET
        assert other.ours.fileno() == -1


def test_a_record_takes_as_long_as_the_reader_of_the_pipe(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Shim(other.ours) as shim:
        monkeypatch.setattr(module, "_ANSWER_S", 0.1)

        def read_later() -> None:
            other.expect_asked()
            time.sleep(0.3)  # longer than any other answer may take
            other.hung.set()

        reader = threading.Thread(target=read_later)
        reader.start()
        assert shim.call(lib.LDFS_SHIM_RECORD, 0, 0, b"bytes").code == 0
        assert other.hung.is_set()
        reader.join(DEADLINE_S)


def test_an_answer_at_the_very_end_of_the_wait_counts() -> None:
    """Else both sides would believe something else. After that no other can be sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        reply = ffi.new("ldfs_shim_reply *", {"rc": -errno.EBUSY, "dump": 7})
        theirs.sendall(pack(reply))
        assert module._last_chance(ours) == (-errno.EBUSY, b"", 7)
        with pytest.raises(BrokenPipeError):
            theirs.sendall(pack(reply))
        assert module._last_chance(ours).code == -errno.ETIMEDOUT


def test_a_shim_of_another_tree_is_refused(other: Other) -> None:
    other.version += 1
    with pytest.raises(MachineError, match="another version"):
        Shim(other.ours)
    assert other.ours.fileno() == -1


def test_a_connection_that_broke_is_hung_up_as_a_whole(other: Other) -> None:
    """We say then that QEMU has gone, and that its memory is free."""
    with Shim(other.ours) as shim:
        broken = shim._free.get()
        broken.shutdown(socket.SHUT_RDWR)
        shim._free.put(broken)
        found = {shim.call(lib.LDFS_SHIM_COUNTERS).code for _ in range(module._CONNECTIONS)}
        assert -errno.ECONNRESET in found
        assert other.ours.fileno() == -1


def test_an_interrupted_call_leaves_no_answer_behind(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    real = module._read_answer

    def interrupted(sock: socket.socket, flags: int) -> module.Answer:
        monkeypatch.setattr(module, "_read_answer", real)
        raise Interrupted

    with Shim(other.ours) as shim:
        monkeypatch.setattr(module, "_read_answer", interrupted)
        with pytest.raises(Interrupted):
            shim.call(lib.LDFS_SHIM_MARKS)
        found = {shim.call(lib.LDFS_SHIM_COUNTERS).code for _ in range(3 * module._CONNECTIONS)}
        assert found == {-errno.ENODATA}


def test_the_wait_for_a_connection_is_part_of_the_time_there_is(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float | None] = []

    def exchange(sock: object, request: object, patience: float | None = None) -> module.Answer:
        given.append(patience)
        return module.Answer(0)

    with Shim(other.ours) as shim:
        monkeypatch.setattr(module, "_exchange", exchange)
        taken = shim._starting.get()
        timer = threading.Timer(0.5, shim._starting.put, (taken,))
        timer.start()
        assert shim.call(lib.LDFS_SHIM_START, within=DEADLINE_S).code == 0
        timer.join()
        monkeypatch.undo()
    assert given[0] is not None and 0 < given[0] <= DEADLINE_S - 0.4


def test_a_connection_that_no_thread_replaces_is_replaced_later(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the thread that next wants one: none is lost, however often that happens."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Shim(other.ours) as shim:
        connections = shim._free.qsize()
        for _ in range(connections):
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                patch.setattr(shim, "_replace_owed", lambda _: None)
                assert shim.call(lib.LDFS_SHIM_READ, 0, 1, within=0.01).code == -errno.ETIMEDOUT
        assert shim._free.empty()
        other.hung.set()
        assert shim.call(lib.LDFS_SHIM_READ, 0, 1, within=DEADLINE_S).code == 0
        assert shim._free.qsize() == connections and shim._owed.empty()
