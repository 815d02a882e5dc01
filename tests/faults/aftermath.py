# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold after any fault: no page is protected, nothing has leaked, writers get on, and the
next dump is consistent and equal to its reference.

Also imported by the programs that tests run: no pytest here.
"""

from __future__ import annotations

import collections
import contextlib
import mmap
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.abi import State, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import LivedumpError, StateError
from livedumpfs.proc import proc_lines
from livedumpfs.targets.names import incomplete_name
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.open_files import names_of_open_files

Host = Any
"""RunningHost of tests/conftest.py."""
DEADLINE_S = 300.0


def expect_incomplete(target: Path) -> None:
    """A file whose dump was cut off: it says so, and the name is left to what is whole."""
    assert not target.exists()
    with open_dump(incomplete_name(str(target))) as dump:
        assert dump.verdict == "incomplete"


def wait_for(what: Callable[[], object], tell: Callable[[], object] = lambda: "") -> None:
    """Until it is true; `tell` says what is known when it never becomes so."""
    end = time.monotonic() + DEADLINE_S
    pause_s = 0.01
    while not what():
        assert time.monotonic() < end, tell()
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, 0.1)  # what is asked is work, too


def comes_back(live: LiveDump) -> bool:
    """Whether what an earlier dump left hanging is over: an INIT works again."""
    try:
        live.init(None)
    except StateError:
        return False
    live.release()
    return True


# --------------------------------------------------------------------- what a process has


@dataclass(frozen=True)
class Footprint:
    """What a process has that could leak. Of its threads those of dumps; libfuse's come and go."""

    files: collections.Counter[str]
    threads: collections.Counter[str]
    views: collections.Counter[int]
    """Bytes of each mapping of an arena, joined where only the rights differ."""
    children: collections.Counter[str]
    mounts: collections.Counter[str]
    """And loop devices: see mounts_and_loops()."""

    def beyond(self, before: Footprint) -> list[object]:
        """What is more than it was. Less is no leak: garbage of an earlier test may have gone."""
        pairs = (
            (self.files, before.files),
            (self.threads, before.threads),
            (self.views, before.views),
            (self.children, before.children),
            (self.mounts, before.mounts),
        )
        return [more for now, then in pairs if (more := now - then)]


def footprint(pid: int | None = None, *folders: Path) -> Footprint:
    """Of this process, or of another one; and what is mounted or attached in these folders."""
    base = Path(f"/proc/{pid or os.getpid()}")
    return Footprint(
        files=collections.Counter(_files(base)),
        threads=collections.Counter(_threads(base, pid)),
        views=_views(base),
        children=collections.Counter((base / f"task/{base.name}/children").read_text().split()),
        mounts=mounts_and_loops(*folders),
    )


def mounts_and_loops(*folders: Path) -> collections.Counter[str]:
    """What is mounted in these folders, and the loop devices over files there. Others run tests on
    this computer at the same time: whose they are, their folder says."""
    found = []
    for line in proc_lines("/proc/self/mountinfo"):
        found.append((line.split()[4], "is mounted"))
    for loop in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached just now
            found.append((loop.read_text().strip(), f"is the file of /dev/{loop.parts[3]}"))
    inside = [one for one in found if any(one[0].startswith(f"{folder}/") for folder in folders)]
    return collections.Counter(f"{path} {how}" for path, how in inside)


def _files(base: Path) -> Iterator[str]:
    for name in names_of_open_files(base):
        if not name.startswith("/proc/"):  # our own look
            yield re.sub(r"\[\d+\]", "", name)


def _threads(base: Path, pid: int | None) -> Iterator[str]:
    for one in os.listdir(base / "task"):
        with contextlib.suppress(OSError):
            name = (base / "task" / one / "comm").read_text().strip()
            if name.startswith("ldfs-") and name != "ldfs-after":  # it ends by itself, unasked
                yield name
    if pid is None or pid == os.getpid():
        yield from (thread.name for thread in threading.enumerate() if thread.is_alive())


def _arena_lines(base: Path) -> Iterator[tuple[int, int, str]]:
    for line in (base / "maps").read_text().splitlines():
        if "livedumpfs-arena" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            yield start, end, line.split()[1]


def _views(base: Path) -> collections.Counter[int]:
    sizes: list[int] = []
    last = -1
    for start, end, _ in _arena_lines(base):
        if start == last:
            sizes[-1] += end - start
        else:
            sizes.append(end - start)
        last = end
    return collections.Counter(sizes)


def writable(address: int, size: int, pid: int | None = None) -> bool:
    """Whether no page of the live view at `address` is protected."""
    rights = [
        (max(start, address), min(end, address + size), how)
        for start, end, how in _arena_lines(Path(f"/proc/{pid or os.getpid()}"))
        if start < address + size and end > address
    ]
    return sum(e - s for s, e, how in rights if how == "rw-s") == size


def expect_footprint(before: Footprint, pid: int | None = None, *folders: Path) -> None:
    """What was closed may take a moment to go."""
    wait_for(
        lambda: not footprint(pid, *folders).beyond(before),
        lambda: f"too much is {footprint(pid, *folders).beyond(before)}, before it was {before}",
    )


# ---------------------------------------------------------------------------- references


@contextlib.contextmanager
def memory_file(size: int) -> Iterator[int]:
    fd = os.memfd_create("reference")
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def expect_equal(target: Path | str, reference: int, size: int) -> None:
    """A consistent dump that is its reference, byte for byte."""
    with (
        open_dump(target) as dump,
        mmap.mmap(reference, size, prot=mmap.PROT_READ) as expected,
    ):
        assert dump.verdict == "consistent", dump.verdict
        for at in range(0, size, 1 << 20):
            length = min(1 << 20, size - at)
            assert dump.read_arena(at, length) == expected[at : at + length], f"at {at:#x}"


# --------------------------------------------------------------------- dumps of this process


def expect_next_dump(live: LiveDump, folder: Path) -> None:
    """Of an arena that only this thread writes."""
    arena, target = live.machine.arena, folder / "next"
    with memory_file(arena.size) as reference:
        settings = DumpSettings(granule=16384, sweep_rate=64 << 20, force=True)
        backend: Any = os.environ.get("BACKEND", "")  # of this program: see caught.py
        live.init(target, replace(settings, backend=backend), reference=reference)
        live.start()
        arena.live[::PAGE_SIZE] += 1
        live.sweep()
        arena.live[7::PAGE_SIZE] += 1
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        live.release()
        expect_equal(target, reference, arena.size)
    assert live.failure is None, live.failure
    target.unlink()


def expect_free(arena: Arena) -> None:
    """Nothing is protected: by the kernel's word, and by a store to every page."""
    assert writable(arena.address, arena.size), "pages are still protected"
    arena.live[3::PAGE_SIZE] += 1


@contextlib.contextmanager
def unharmed(live: LiveDump, folder: Path | None = None) -> Iterator[None]:
    """Around a fault, whatever it leaves of its dump."""
    arena = live.machine.arena
    with tempfile.TemporaryDirectory(dir=folder) as place:
        expect_next_dump(live, Path(place))  # the first dump makes what later ones use again
        before = footprint()
        yield
        live.release()
        expect_free(arena)
        expect_footprint(before)
        expect_next_dump(live, Path(place))
        expect_free(arena)
        expect_footprint(before)


# ------------------------------------------------------------------------ dumps of a host


def finish_release(client: Client) -> None:
    """RELEASE, and wait until a target that hung has let go."""
    client.release()
    assert client.status().state in (State.UNDEFINED, State.UNINIT)


def expect_host_dump(host: Host, folder: Path) -> None:
    """INIT may have to wait for the last target's I/O."""
    target = folder / "next"
    with Client(host.device) as client:

        def begin() -> bool:
            with contextlib.suppress(LivedumpError):
                client.init(str(target), InitOptions(force=True))
                return True
            return False

        wait_for(begin, client.error)
        client.start()
        client.sweep()
        status = client.finish(DEADLINE_S)
        assert status.verdict is Verdict.CONSISTENT and status.failure is None, status
        client.release()
    expect_equal(target, host.reference, host.size)
    target.unlink()


def expect_host_free(host: Host) -> None:
    """Its guest runs on, with nothing protected."""
    host.runs_on()
    assert writable(host.address, host.size, host.process.pid), "pages are still protected"


@contextlib.contextmanager
def host_unharmed(host: Host) -> Iterator[None]:
    """Around a fault of a host that lives on."""
    folder = host.mountpoint.parent
    with tempfile.TemporaryDirectory(dir=folder) as place:
        expect_host_dump(host, Path(place))
        before = footprint(host.process.pid, folder)
        yield
        with Client(host.device) as client:
            finish_release(client)
        expect_host_free(host)
        expect_host_dump(host, Path(place))
        expect_host_free(host)
        expect_footprint(before, host.process.pid, folder)
