# SPDX-License-Identifier: GPL-2.0-or-later
"""The mount, its clients and its host are interfered with in the middle of a dump: taken away,
aborted, killed inside a call, stopped and let go on, or there twice."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aftermath import (
    DEADLINE_S,
    Host,
    expect_equal,
    expect_host_dump,
    expect_host_free,
    expect_incomplete,
    host_unharmed,
    wait_for,
)
from faulty_disk import faulty_disk

from livedumpfs.abi import State, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import HostError, LivedumpError, TargetError
from livedumpfs.targets.names import incomplete_name
from tests.fixtures import forks
from tests.fixtures.program_files import program_command

HostMaker = Callable[..., Host]
MIB = 1 << 20
SLOW = 1 << 10
"""Bytes a second of a sweep that lasts as long as any test."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


def begin(client: Client, target: Path, rate: int = SLOW, **how: Any) -> None:
    client.init(str(target), InitOptions(sweep_rate=rate, **how))
    client.start()
    client.sweep()


def is_mounted(host: Host) -> bool:
    return bool(host.is_mounted())


def again(host: Host, folder: Path) -> None:
    """The same host, started anew on the same place."""
    host.start()
    expect_host_dump(host, folder)
    expect_host_free(host)


# ------------------------------------------------------------------------ it goes away


def test_a_lazy_unmount_lets_open_clients_finish(host: Host, tmp_path: Path) -> None:
    """The name is gone, the connection is not: a client that has the device open ends its dump."""
    with Client(host.device) as client:
        begin(client, tmp_path / "dump", rate=16 * MIB)
        subprocess.run(["fusermount", "-uz", str(host.mountpoint)], check=True, timeout=DEADLINE_S)
        assert not is_mounted(host)
        with contextlib.suppress(HostError):  # the host may end at once: then it says so
            client.finish(DEADLINE_S, check=False)
    assert host.process.wait(DEADLINE_S) == 0, host.log.read_text()
    if (tmp_path / "dump").exists():
        with open_dump(tmp_path / "dump") as dump:
            assert dump.verdict == "consistent"
    else:
        expect_incomplete(tmp_path / "dump")
    again(host, tmp_path)


@as_root
@pytest.mark.parametrize("taken_away", [False, True])
def test_requests_that_come_when_python_has_ended(tmp_path: Path, taken_away: bool) -> None:
    """From a file that is still open: they are refused, and none kills the host's process."""
    (place := tmp_path / "mount").mkdir()
    with subprocess.Popen(
        program_command(__file__, "ends_slowly.py", place),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        file = os.open(place / "machine/state", os.O_RDONLY)
        try:
            assert os.pread(file, 100, 0)
            if taken_away:
                command = ["fusermount", "-uz", str(place)]
                subprocess.run(command, check=True, timeout=DEADLINE_S)
            process.send_signal(signal.SIGTERM)
            assert "Success" in process.stderr.readline()
            with pytest.raises(OSError) as refused:
                os.pread(file, 100, 0)
            assert refused.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)
        finally:
            with contextlib.suppress(OSError):
                os.close(file)
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0, process.stderr.read()
    assert not os.path.ismount(place)


@contextlib.contextmanager
def fuse_connections(place: Path) -> Iterator[Path]:
    """fusectl, where it is mounted or here."""
    usual = Path("/sys/fs/fuse/connections")
    if any(usual.iterdir()):
        yield usual
        return
    place.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "none", str(place)], check=True, timeout=300)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=300)


@as_root
def test_a_connection_that_is_aborted(host: Host, tmp_path: Path) -> None:
    """Every call under way gets its error at once, the host ends in good order, and the target says
    what it is."""
    with fuse_connections(tmp_path / "connections") as connections, Client(host.device) as client:
        begin(client, tmp_path / "dump")
        answers: list[BaseException] = []

        def finish() -> None:
            try:
                client.finish(DEADLINE_S)
            except HostError as error:
                answers.append(error)

        waiting = threading.Thread(target=finish)
        waiting.start()
        number = os.minor(os.stat(host.mountpoint).st_dev)
        (connections / str(number) / "abort").write_text("1")
        waiting.join(DEADLINE_S)
        assert answers and not waiting.is_alive()
    assert host.process.wait(DEADLINE_S) == 0, host.log.read_text()
    wait_for(lambda: not is_mounted(host))
    expect_incomplete(tmp_path / "dump")
    again(host, tmp_path)


# ----------------------------------------------------------------- clients that are killed


def test_a_client_killed_inside_an_ioctl(host: Host, tmp_path: Path) -> None:
    """It stays in the kernel until the host answers; no other client notices, and RELEASE by
    another client answers it."""
    with host_unharmed(host), Client(host.device) as client:
        client.init(str(tmp_path / "dump"), InitOptions(sweep_rate=SLOW))
        client.start()
        blocked = forks.start(
            program_command(__file__, "old_sweep.py", host.device),
            env=host.environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with blocked:
            assert blocked.stdout and blocked.stdout.readline() == "asking\n"
            wait_for(lambda: client.status().state is State.SWEEP, client.status)
            blocked.kill()
            host.runs_on()
            assert client.status().state is State.SWEEP
            client.release()
            blocked.wait(DEADLINE_S)
        expect_incomplete(tmp_path / "dump")


def test_a_client_killed_while_init_hangs(host: Host, tmp_path: Path) -> None:
    """INIT on a disk that does not answer: the client's death leaves a host that others use."""
    with faulty_disk(tmp_path / "faulty", 32 * MIB) as disk, host_unharmed(host):
        disk.fault("hang")
        asking = forks.start(
            program_command(__file__, "forced_init.py", host.device, disk.file),
            env=host.environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(disk.hits, host.log.read_text)
        asking.kill()
        with Client(host.device) as client:
            assert client.status().state in (State.UNDEFINED, State.UNINIT)
            host.runs_on()
        disk.fault("none")
        asking.wait(DEADLINE_S)


# ----------------------------------------------------------------- a host that stands still


def test_a_host_that_is_stopped_and_goes_on(host: Host, tmp_path: Path) -> None:
    """Its client waits with it; the dump is none the worse."""
    with host_unharmed(host), Client(host.device) as client:
        begin(client, tmp_path / "dump", rate=32 * MIB, max_age=600)
        process = psutil.Process(host.process.pid)
        statuses = []
        for _ in range(3):
            asking = threading.Thread(target=lambda: statuses.append(client.status()), daemon=True)
            host.process.send_signal(signal.SIGSTOP)
            try:
                wait_for(lambda: process.status() == psutil.STATUS_STOPPED, process.status)
                asking.start()
                asking.join(0.1)
                assert asking.is_alive(), "a stopped host has answered"
            finally:
                host.process.send_signal(signal.SIGCONT)
            asking.join(DEADLINE_S)
            assert not asking.is_alive()
        assert len(statuses) == 3
        assert client.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
        client.release()


# --------------------------------------------------------------------------- two of them


def expect_in_use(other: Client, *paths: Path) -> None:
    for path in paths:
        with pytest.raises(TargetError) as caught:
            other.init(str(path), InitOptions(force=True))
        assert caught.value.errno == errno.EBUSY, caught.value
        assert other.status().state in (State.UNDEFINED, State.UNINIT)


def test_two_hosts_and_one_target(run_host: HostMaker, tmp_path: Path) -> None:
    """By whatever name: the second one is refused while the first one dumps, and writes nothing."""
    first, second = run_host(), run_host()
    target, link, name = tmp_path / "dump", tmp_path / "link", tmp_path / "name"
    with host_unharmed(second):
        with Client(first.device) as one, Client(second.device) as other:
            begin(one, target, rate=0)
            assert one.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
            one.release()
            one.init(str(target), InitOptions(force=True))
            link.hardlink_to(incomplete_name(str(target)))
            name.symlink_to(target)
            one.start()
            # Each of the names leads to a file that is in use, unfinished and finished.
            expect_in_use(other, target, link, name)
            one.sweep()
            assert one.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
            expect_in_use(other, target, link, name)
            one.release()
            expect_equal(target, first.reference, first.size)
            begin(other, target, rate=0, force=True)
            assert other.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
            other.release()
        expect_equal(target, second.reference, second.size)
    expect_host_free(first)


# ------------------------------------------------------------------------------- readers

FILES = ("snapshot/vmcore", "snapshot/mem.raw", "snapshot/mem.lime", "snapshot/info.json")


def open_all(host: Host) -> list[int]:
    names = [str(p.relative_to(host.mountpoint)) for p in host.mountpoint.rglob("*") if p.is_file()]
    assert {os.path.basename(name) for name in FILES} <= {os.path.basename(name) for name in names}
    found = []
    for name in names:
        with contextlib.suppress(PermissionError):  # what can only be written
            found.append(os.open(host.mountpoint / name, os.O_RDONLY))
    return found


def test_a_reader_that_opens_everything_and_reads_nothing(host: Host, tmp_path: Path) -> None:
    """Through three dumps: RELEASE does not wait for it, and an old file never shows a new dump."""
    held: list[int] = []
    try:
        with host_unharmed(host):
            for _ in range(3):
                with Client(host.device) as client:
                    begin(client, tmp_path / "dump", rate=0, force=True)
                    held += open_all(host)
                    old = [os.open(host.mountpoint / name, os.O_RDONLY) for name in FILES[:3]]
                    held += old
                    assert client.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
                    client.release()
                    client.init(None)
                    client.start()
                    for fd in old:
                        with pytest.raises(OSError) as caught:
                            os.pread(fd, 4096, 0)
                        assert caught.value.errno == errno.ENODATA
                    client.release()
    finally:
        for fd in held:
            os.close(fd)


def test_a_reader_that_hangs_in_the_target_while_release_comes(host: Host, tmp_path: Path) -> None:
    """RELEASE frees the machine and returns; the reader is answered when the disk is, and until
    then there is no INIT."""
    made = faulty_disk(tmp_path / "faulty", 32 * MIB)
    with made as disk, host_unharmed(host), Client(host.device) as client:
        begin(client, disk.file, rate=0, force=True)
        assert client.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
        disk.fault("mute")
        answers: list[int] = []

        def read() -> None:
            fd = os.open(host.mountpoint / "snapshot" / "mem.raw", os.O_RDONLY)
            try:
                os.pread(fd, MIB, 4 * MIB)
            except OSError as error:
                answers.append(error.errno or 0)
            finally:
                os.close(fd)

        reading = threading.Thread(target=read)
        reading.start()
        wait_for(disk.hits, client.status)
        client.release()
        host.runs_on()
        assert reading.is_alive()
        with pytest.raises(LivedumpError, match="still hangs") as caught:
            client.init(None)
        assert caught.value.errno == errno.EBUSY
        disk.fault("none")
        reading.join(DEADLINE_S)
        assert not reading.is_alive() and answers == [errno.ENODATA], answers


def test_readers_that_hang_do_not_keep_a_close_from_the_host(host: Host, tmp_path: Path) -> None:
    """Of the client whose dump is to be released then. To the kernel a last close is a request like
    a read ahead, of which it has a limited number under way."""
    with faulty_disk(tmp_path / "faulty", 32 * MIB) as disk, host_unharmed(host):
        with Client(host.device) as client:
            begin(client, disk.file, rate=0, force=True, release_on_close=True)
            assert client.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
            disk.fault("mute")
            fd = os.open(host.mountpoint / "snapshot" / "mem.raw", os.O_RDONLY)

            def read(number: int) -> None:
                with contextlib.suppress(OSError):
                    os.pread(fd, 4096, number * MIB // 2)

            readers = [threading.Thread(target=read, args=(one,)) for one in range(1, 25)]
            for one in readers:
                one.start()
            wait_for(lambda: disk.hits() >= 12, client.status)
        try:
            wait_for(lambda: host.read("control/state").startswith(f"{State.UNINIT:d}\n"))
        finally:
            disk.fault("none")
            for one in readers:
                one.join(DEADLINE_S)
            os.close(fd)
