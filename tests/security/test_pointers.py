# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT's argument is a pointer into the caller's memory, and that memory is the caller's own."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.abi import State
from livedumpfs.client import Client
from livedumpfs.dumpfile import open_dump
from livedumpfs.rights import helper
from livedumpfs.rights.folder import Refused
from tests.fixtures import forks
from tests.fixtures.own_threads import files_of_threads
from tests.fixtures.program_files import program_command

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DEADLINE = 300.0
PAGE = mmap.PAGESIZE
KERNEL = (
    1 << 47, 1 << 63, 0xFFFF_8000_0000_0000, 0xFFFF_8880_0000_0000, 0xFFFF_FFFF_8100_0000,
    0xFFFF_FFFF_FF60_0000, (1 << 64) - 4096, (1 << 64) - 1,
)  # fmt: skip
"""Not canonical, the kernel's direct map, its text, the page of old system calls, the very end."""
KILLED = 10
REMAPPED = 30

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


@pytest.fixture
def host(run_host: HostMaker) -> Host:
    return run_host()


def init(device: str, pointer: int) -> str:
    """INIT, and RELEASE when it worked: "ok", or the errno's name."""
    fd = os.open(device, os.O_RDONLY)
    try:
        if libc.ioctl(fd, ctypes.c_ulong(abi.INIT), ctypes.c_void_p(pointer)):
            return errno.errorcode[ctypes.get_errno()]
        assert libc.ioctl(fd, ctypes.c_ulong(abi.RELEASE), None) == 0
        return "ok"
    finally:
        os.close(fd)


@pytest.fixture
def pages() -> Iterator[int]:
    """Address of two pages of memory, with nothing behind them."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    start = libc.mmap(None, 3 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, private, -1, 0)
    libc.munmap(start + 2 * PAGE, PAGE)
    yield start
    libc.munmap(start, 2 * PAGE)


def test_strings_at_the_edges_of_memory(host: Host, tmp_path: Path, pages: int) -> None:
    path = os.fsencode(tmp_path / "out") + b"\0"
    ctypes.memset(pages, ord("x"), 2 * PAGE)
    assert init(host.device, pages + 1) == "ENAMETOOLONG"
    assert init(host.device, pages + PAGE + 1) == "EFAULT"  # no NUL before the end
    for place in (PAGE - 5, 2 * PAGE - len(path)):  # over a border, and right before the end
        ctypes.memmove(pages + place, path, len(path))
        assert init(host.device, pages + place) == "ok"
    assert init(host.device, pages + 2 * PAGE - 1) == "EINVAL"  # an empty string
    libc.mprotect(ctypes.c_void_p(pages), PAGE, 0)
    assert init(host.device, pages) == "EFAULT"
    for pointer in KERNEL:
        assert init(host.device, pointer) == "EFAULT", hex(pointer)
    host.runs_on()


def test_memory_that_changes_under_the_read(host: Host, tmp_path: Path, pages: int) -> None:
    """What was read once is what counts: no target but one of the two names, or a mixture of their
    bytes in the same folder; and never an answer but a clear one when the page comes and goes."""
    names = [os.fsencode(tmp_path / (letter * 8)) + b"\0" for letter in ("a", "b")]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for name in names:
                ctypes.memmove(pages + PAGE, name, len(name))
            libc.munmap(pages, 2 * PAGE)
            fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
            libc.mmap(pages, 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, fixed, -1, 0)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        found = {init(host.device, pages + PAGE) for _ in range(REMAPPED)}
    finally:
        stop.set()
        thread.join(DEADLINE)
    assert found <= {"ok", "EFAULT", "EINVAL", "ENOENT", "EISDIR", "ENAMETOOLONG"}, found
    made = {path.name for path in tmp_path.iterdir() if path.is_file()} - {"host-0.log"}
    assert all(set(name) <= {"a", "b"} for name in made), made
    host.runs_on()


def test_callers_that_die_while_they_ask(host: Host, tmp_path: Path) -> None:
    """Killed, or gone by another thread's exit, at any moment of INIT: the host loses no step."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    descriptors = Path(f"/proc/{host.process.pid}/fd")
    before = len(os.listdir(descriptors))
    for number in range(KILLED):
        wait = chosen.uniform(0, 0.2)
        extra = [str(wait)] if number % 2 else []
        with forks.start(
            program_command(__file__, "caller_that_dies.py", host.device, tmp_path / "out", *extra),
            env=host.environment, stdout=subprocess.PIPE,
        ) as caller:  # fmt: skip
            assert caller.stdout is not None and caller.stdout.readline() == b"asking\n"
            if not extra:
                time.sleep(wait)
                caller.send_signal(signal.SIGKILL)
            caller.wait(DEADLINE)
    with Client(host.device) as client:
        client.release()
        client.init(str(tmp_path / "out"))
        client.start()
        client.sweep()
        client.finish(DEADLINE)
        client.release()
        assert client.status().state is State.UNINIT
    with open_dump(str(tmp_path / "out")) as dump:
        assert dump.verdict == "consistent"
    deadline = time.monotonic() + DEADLINE
    while len(os.listdir(descriptors)) > before:
        assert time.monotonic() < deadline, os.listdir(descriptors)
        time.sleep(0.05)
    host.runs_on()


def test_a_task_that_has_gone_lends_no_rights(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait(DEADLINE)
    with pytest.raises(Refused) as caught:
        helper.Helper(gone.pid, os.geteuid(), os.getegid())
    assert caught.value.errno == errno.ESRCH
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users: needs root")
def test_a_number_that_another_task_has_got_lends_no_rights(tmp_path: Path) -> None:
    """FUSE says which user asked; a later task of the same number is another's."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    user = 3_000_111
    with subprocess.Popen(["sleep", "600"]) as later:
        try:
            for uid, gid in ((user, user), (user, 0), (0, user)):
                with pytest.raises(Refused) as caught:
                    helper.Helper(later.pid, uid, gid)
                assert caught.value.errno == errno.EPERM
        finally:
            later.kill()
    assert not list(private.iterdir())


def test_a_helper_that_is_held_up_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user may send it signals: here before it is asked for anything."""

    class Stopped(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            os.kill(self.pid, signal.SIGSTOP)

    with monkeypatch.context() as patch, pytest.raises(Refused) as caught:
        patch.setattr(subprocess, "Popen", Stopped)
        task = threading.get_native_id()
        helper.Helper(task, os.geteuid(), os.getegid(), timeout=0.5)
    assert caught.value.errno == errno.ETIMEDOUT
    assert not children()


def children() -> list[int]:
    """Of this thread's process, with opener.py as their program."""
    found = [int(pid) for text in files_of_threads("children").values() for pid in text.split()]
    return [pid for pid in found if b"opener.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
