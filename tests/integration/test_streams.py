# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps that go into a pipe: `livedump dump -`, `livedump init -`, a FIFO."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.abi import Compression, Format, State, Verdict
from livedumpfs.cli.proof import prove_dump
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import TargetError
from tests.fixtures import forks

TOP = Path(__file__).resolve().parents[2]
LIVEDUMP = str(TOP / "scripts" / "livedump")
DEADLINE = 300.0
KDUMP = ("--format", "kdump")
HEADER = 4096
PIECE = 1 << 16
Host = Any
"""RunningHost of conftest.py."""


@pytest.fixture
def host(run_host: Callable[..., Host]) -> Host:
    return run_host()


@pytest.fixture
def begin(host: Host) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a livedump command; what is left of it is killed at the end."""
    begun: list[subprocess.Popen[bytes]] = []

    def run(*words: str, stdout: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
        process = forks.start(
            [LIVEDUMP, *words, "--device", host.device],
            env={**host.environment, "LIVEDUMP_PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            bufsize=0,  # what communicate() gives is the rest of what was read before
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.wait(DEADLINE)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def until(what: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, f"still not so after {DEADLINE:g} s: {told()}"
        time.sleep(0.02)


def state(host: Host) -> State:
    with Client(host.device) as client:
        return client.status().state


def rearrange(stream: bytes, path: Path) -> bool:
    """What `makedumpfile -R` does; whether the record was there that says it is all."""
    assert stream.startswith(b"makedumpfile\0"), stream[:64]
    position, ended = HEADER, False
    with open(path, "wb") as file:
        while position + 16 <= len(stream):
            offset, length = struct.unpack(">qq", stream[position : position + 16])
            position += 16
            if (offset, length) == (-1, -1):
                ended = True
                break
            file.seek(offset)
            file.write(stream[position : position + length])
            position += length
    assert not ended or position == len(stream), "something comes behind the end"
    return ended


def good(path: Path, verdict: str = "consistent", format: str = "kdump") -> None:
    with open_dump(path) as dump:
        assert (dump.format, dump.verdict) == (format, verdict)
        report = prove_dump(dump)
        assert report.ok == (verdict == "consistent"), report.problems
        assert not report.checksums.bad and not report.checksums.unreadable
        assert verdict != "consistent" or (report.ledger is not None and report.ledger.ok)


@pytest.mark.parametrize("how", ["kdump --compress zstd", "kdump --compress none", "elf"])
def test_a_dump_to_standard_output(
    how: str, host: Host, begin: Callable[..., Any], tmp_path: Path
) -> None:
    process = begin("dump", "-", "--format", *how.split())
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert rearrange(out, tmp_path / "dump")
    good(tmp_path / "dump", format=how.split()[0])
    said = err.decode()
    assert "machine stopped for" in said and "verdict" in said
    assert "standard output" in said and "/proc/" not in said
    assert state(host) is State.UNINIT
    host.runs_on()


@pytest.mark.skipif(shutil.which("makedumpfile") is None, reason="makedumpfile is not installed")
@pytest.mark.parametrize("format", ["kdump", "elf"])
def test_makedumpfile_makes_a_file_of_it(
    begin: Callable[..., Any], tmp_path: Path, format: str
) -> None:
    process = begin("dump", "-", "--format", format)
    subprocess.run(
        ["makedumpfile", "-R", str(tmp_path / "dump")],
        stdin=process.stdout, stdout=subprocess.DEVNULL, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert process.wait(DEADLINE) == 0
    good(tmp_path / "dump", format=format)


@pytest.mark.parametrize("command", ["dump", "init"])
def test_no_raw_goes_there(command: str, host: Host, begin: Callable[..., Any]) -> None:
    process = begin(command, "-", "--format", "raw")
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (1, b"")
    assert b"it is a pipe, and format raw needs a device or a file" in err
    assert err.count(b"livedump: error: ") == 1 and b"Traceback" not in err
    assert state(host) is State.UNDEFINED


@pytest.mark.parametrize("command", ["dump", "init"])
def test_a_terminal_is_refused(command: str, host: Host, begin: Callable[..., Any]) -> None:
    ours, theirs = pty.openpty()
    try:
        process = begin(command, "-", *KDUMP, stdout=theirs)
        _, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 2
        assert b"a dump does not go to a terminal" in err
    finally:
        os.close(ours)
        os.close(theirs)
    assert state(host) is State.UNDEFINED


def test_a_reader_that_leaves_makes_it_fail(host: Host, begin: Callable[..., Any]) -> None:
    process = begin("dump", "-", *KDUMP, "--compress", "none")
    assert process.stdout.read(PIECE)
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode in (1, 3)  # before there was a dump, or during it
    assert b"to standard output: Broken pipe" in err and b"Traceback" not in err
    assert b"/proc/" not in err
    assert err.count(b"livedump: error: ") == 1
    never = () if process.returncode == 3 else (State.UNDEFINED,)  # INIT met the reader's end
    assert state(host) in (State.UNINIT, *never)
    host.runs_on()


def test_a_slow_reader_gets_all_of_it(
    host: Host, begin: Callable[..., Any], tmp_path: Path
) -> None:
    process = begin("dump", "-", *KDUMP, "--compress", "none", "--deadline", "50")
    pieces = []
    # Between the first pieces the pipe fills up, and everything behind it waits.
    while piece := process.stdout.read(PIECE):
        pieces.append(piece)
        time.sleep(0.2 if len(pieces) < 8 else 0)
    assert process.wait(DEADLINE) == 0
    assert rearrange(b"".join(pieces), tmp_path / "dump")
    good(tmp_path / "dump")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_broken_off_has_no_end(
    number: signal.Signals, host: Host, begin: Callable[..., Any], tmp_path: Path
) -> None:
    """And a reader that takes what came finds an incomplete dump in it."""
    process = begin("dump", "-", *KDUMP, "--compress", "none", "--sweep-rate", "2M")
    head = b""
    while len(head) < 4 << 20:
        piece = process.stdout.read(PIECE)
        assert piece, process.communicate(timeout=DEADLINE)
        head += piece
    assert state(host) is State.SWEEP
    process.send_signal(number)
    rest, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), err
    assert not rearrange(head + rest, tmp_path / "dump")
    until(lambda: state(host) is State.UNINIT)
    host.runs_on()
    if number == signal.SIGINT:  # all that the host wrote came through
        good(tmp_path / "dump", "incomplete")


def test_init_stays_until_the_release(
    host: Host, begin: Callable[..., Any], tmp_path: Path
) -> None:
    process = begin("init", "-", *KDUMP, "--compress", "lzo", "--threads", "2")
    out: list[bytes] = []
    reader = threading.Thread(target=lambda: out.append(process.stdout.read()))
    reader.start()
    until(lambda: state(host) is State.INIT)
    for step in ("start", "sweep", "finish", "release"):
        done = begin(step)
        _, err = done.communicate(timeout=DEADLINE)
        assert done.returncode == 0, err
        assert process.poll() is None or step == "release"
    reader.join(DEADLINE)
    assert process.wait(DEADLINE) == 0, process.stderr.read()
    assert rearrange(out[0], tmp_path / "dump")
    good(tmp_path / "dump")


def test_init_says_that_its_reader_has_gone(host: Host, begin: Callable[..., Any]) -> None:
    """No other command has to find out: the dump is released."""
    process = begin("init", "-", *KDUMP, "--compress", "none")
    until(lambda: state(host) is State.INIT)
    process.stdout.close()
    process.stdout = None
    assert begin("start").wait(DEADLINE) == 0  # what the machine overwrites goes out from here on
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 3
    assert b"cannot write to standard output: Broken pipe" in err
    assert state(host) is State.UNINIT
    host.runs_on()


def test_init_that_is_released_early_fails(host: Host, begin: Callable[..., Any]) -> None:
    process = begin("init", "-", *KDUMP)
    until(lambda: state(host) is State.INIT)
    assert begin("release").wait(DEADLINE) == 0
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 3
    assert b"standard output is incomplete: it was released before its end" in err


def test_init_that_ends_takes_its_dump_with_it(host: Host, begin: Callable[..., Any]) -> None:
    process = begin("init", "-", *KDUMP)
    until(lambda: state(host) is State.INIT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    until(lambda: state(host) is State.UNINIT)


# -------------------------------------------------------------------------- FIFOs


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_a_fifo_with_a_reader(
    host: Host, begin: Callable[..., Any], fifo: Path, tmp_path: Path
) -> None:
    with open(tmp_path / "stream", "wb") as out:
        reader = subprocess.Popen(["cat", str(fifo)], stdout=out)
        # cat opens it when it does: until then no process reads, and that is refused.
        deadline = time.monotonic() + DEADLINE
        while True:
            process = begin("dump", str(fifo), *KDUMP)
            _, err = process.communicate(timeout=DEADLINE)
            if b"no process reads it" not in err:
                break
            assert time.monotonic() < deadline
        assert process.returncode == 0, err
        assert reader.wait(DEADLINE) == 0
    assert rearrange((tmp_path / "stream").read_bytes(), tmp_path / "dump")
    good(tmp_path / "dump")


def test_a_fifo_that_nobody_reads(host: Host, fifo: Path) -> None:
    with (
        Client(host.device) as client,
        pytest.raises(TargetError, match="no process reads it") as error,
    ):
        client.init(str(fifo), InitOptions(format=Format.KDUMP))
    assert error.value.errno == errno.ENXIO
    assert state(host) is State.UNDEFINED


def test_a_reader_that_never_reads_ends_init(host: Host, fifo: Path) -> None:
    """It has it open and takes nothing: INIT gives up, and the next one is as always."""
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    options = InitOptions(format=Format.KDUMP, stall_deadline=0.3)
    try:
        # The pipe takes a page only, or INIT would be done before it is full.
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        with Client(host.device) as client:
            with pytest.raises(TargetError, match="no process reads it") as error:
                client.init(str(fifo), options)
            assert error.value.errno == errno.ECANCELED
            assert client.status().state in (State.UNDEFINED, State.UNINIT)
            client.init(None)
            client.start()
            client.release()
    finally:
        os.close(reader)
    host.runs_on()


class Reader:
    """Takes what comes out of a FIFO, as `take` says, until its writer closes it."""

    def __init__(self, fifo: Path, take: Callable[[bytes], object]) -> None:
        self.fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.take = take
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        watch = select.poll()
        watch.register(self.fd, select.POLLIN)
        # Before the first writer there is no event; after the last POLLHUP, and reads give nothing.
        while not self.ended.is_set():
            if watch.poll(50):
                data = os.read(self.fd, PIECE)
                if not data:
                    return
                self.take(data)

    def close(self) -> None:
        self.ended.set()
        self.thread.join(DEADLINE)
        os.close(self.fd)


def test_a_release_frees_the_machine_from_a_reader_that_stands_still(
    host: Host, fifo: Path
) -> None:
    taken: list[bytes] = []
    go_on = threading.Event()

    def take(data: bytes) -> None:
        taken.append(data)
        if len(taken) == 32:
            go_on.wait(DEADLINE)

    reader = Reader(fifo, take)
    try:
        with Client(host.device) as client:
            options = InitOptions(format=Format.KDUMP, compression=Compression.NONE)
            client.init(str(fifo), options)
            client.start()
            client.sweep()
            until(lambda: len(taken) >= 32, client.status)
            assert client.status().state is State.SWEEP
            client.release()
            assert client.status().state is State.UNINIT
            host.runs_on()
    finally:
        go_on.set()
        reader.close()


def test_what_has_left_cannot_be_read_again(host: Host, fifo: Path) -> None:
    reader = Reader(fifo, lambda _: None)
    try:
        with Client(host.device) as client:
            client.init(str(fifo), InitOptions(format=Format.KDUMP))
            client.start()
            client.sweep()
            assert client.finish(DEADLINE).verdict is Verdict.CONSISTENT
            with pytest.raises(OSError) as gone:
                (host.mountpoint / "snapshot" / "mem.raw").read_bytes()
            assert gone.value.errno == errno.EIO
            client.release()
    finally:
        reader.close()
