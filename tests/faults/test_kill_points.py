# SPDX-License-Identifier: GPL-2.0-or-later
"""A host is killed at random moments of a dump: what its target says it has is there, and right.

The reference is a copy of the machine's memory that the core makes inside the pause. LIVEDUMP_KILLS
says at how many moments (`make kill-points`: 100; default: 6), LIVEDUMP_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil
import pytest
from oracle import Reference

from livedumpfs.abi import Format, State
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import HOLE, SAVED, DumpFile, files_of, open_dump
from livedumpfs.errors import InvalidDump, LivedumpError, TargetError
from livedumpfs.proc import proc_text
from tests.fixtures import forks
from tests.fixtures.program_files import program_command

MIB = 1 << 20
SIZE = 24 * MIB
RATE = 24 * MIB
"""Bytes a second of the sweep: there is time to be killed in."""
KILLS = int(os.environ.get("LIVEDUMP_KILLS", "6"))
MORE = 10
"""So many more at the most, until something was recovered and something was missing."""
DEADLINE = 300.0
FORMATS = (Format.ELF, Format.RAW, Format.KDUMP)


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after the call of INIT, or after `share` of the memory is on
    the target; above 1: after the seal."""

    share: float | None
    after: float


@dataclass
class Found:
    """Of all points."""

    recovered: int = 0
    """Granules that were compared."""
    missing: int = 0
    sealed: int = 0
    nothing: int = 0
    """Targets that INIT had not written yet."""

    def __add__(self, other: Found) -> Found:
        return Found(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def moments(chosen: random.Random, count: int) -> list[Moment]:
    """One in five before or about START; the others spread over the sweep, drain and seal."""
    early = [Moment(None, chosen.uniform(0, 0.06)) for _ in range(count // 5)]
    late = count - len(early)
    shares = [(i + chosen.random()) / late * 1.1 for i in range(late)]
    # Marks come in batches: at once, and when some of them have been written.
    found = early + [Moment(s, chosen.uniform(0, chosen.choice((0.01, 0.4)))) for s in shares]
    chosen.shuffle(found)
    return found


class Victim:
    """A host of the built-in guest, which writes hard, and a reference of its START."""

    def __init__(self, folder: Path, reference: int) -> None:
        self.mountpoint = folder / "mount"
        self.mountpoint.mkdir(exist_ok=True)
        self.process = forks.start(
            program_command(__file__, "killed_host.py", str(SIZE), self.mountpoint, str(reference)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, pass_fds=[reference],
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        )  # fmt: skip
        try:
            assert self.process.stdout
            assert self.process.stdout.readline() == "ready\n", "the host did not start"
        except BaseException:
            self.kill()
            raise

    def dump_until(self, moment: Moment, target: Path, options: InitOptions) -> State | None:
        """Dump, and kill the host at that moment. The last step that was answered."""
        reached: list[State] = []
        thread = threading.Thread(target=self._dump, args=(target, options, reached))
        with Client(str(self.mountpoint / "livedump")) as client:
            thread.start()
            if moment.share is not None:
                self._wait_for(moment.share, client, thread)
            time.sleep(moment.after)
            self.kill()
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the client of a dead host hangs"
        return reached[-1] if reached else None

    def _dump(self, target: Path, options: InitOptions, reached: list[State]) -> None:
        with (
            contextlib.suppress(LivedumpError, OSError),
            Client(str(self.mountpoint / "livedump")) as client,
        ):
            client.init(str(target), options)
            reached.append(State.INIT)
            client.start()
            reached.append(State.START)
            client.sweep()
            reached.append(State.SWEEP)
            assert [*client.progress(0.002)][-1].finished
            reached.append(State.FINISH)

    @staticmethod
    def _wait_for(share: float, client: Client, dump: threading.Thread) -> None:
        deadline = time.monotonic() + DEADLINE
        while dump.is_alive():
            status = client.status()
            assert time.monotonic() < deadline, status
            if status.state is State.SWEEP and status.bytes_done >= share * SIZE:
                break
            time.sleep(0.001)

    def kill(self) -> None:
        """SIGKILL; its mount and all processes that it started are gone then."""
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.communicate(timeout=DEADLINE)
        _, left = psutil.wait_procs(children, DEADLINE)
        assert not left, f"the host has left {left}"
        if f" {self.mountpoint} " in proc_text("/proc/self/mountinfo"):
            command = ["fusermount", "-u", "-z", str(self.mountpoint)]
            subprocess.run(command, timeout=DEADLINE, check=True)


def is_missing(dump: DumpFile, granule: int) -> bool:
    """By the mark."""
    return int(dump.entries["state"][granule]) not in (SAVED, HOLE)


def compare(dump: DumpFile, reference: mmap.mmap, found: Found) -> None:
    """Every granule of the dump, and of its mem.raw."""
    raw = files_of(dump).open("mem.raw")
    for granule in range(len(dump.entries)):
        at, length = granule * dump.granule_size, dump.granule_length(granule)
        if not is_missing(dump, granule):
            expected = reference[at : at + length]
            assert dump.read_arena(at, length) == expected, f"granule {granule} is wrong"
            assert raw.pread(at, length) == expected
            found.recovered += 1
            continue
        found.missing += 1
        for offset in (at, at + length - 1):
            for read in (dump.read_arena, raw.pread):
                with pytest.raises(OSError, match="was not saved") as caught:
                    read(offset, 1)
                assert caught.value.errno == errno.EIO


@contextlib.contextmanager
def mounted(target: Path, place: Path) -> Iterator[Path]:
    """`livedump mount` of it, by a process of its own."""
    place.mkdir(exist_ok=True)
    process = forks.start(
        [sys.executable, "-m", "livedumpfs.cli", "mount", str(target), str(place)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
        env={**os.environ, "XDG_RUNTIME_DIR": str(place.parent)},
    )  # fmt: skip
    try:
        assert process.stdout and process.stdout.readline() == f"snapshot {place}/snapshot\n"
        yield place / "snapshot"
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


def check_commands(dump: DumpFile, target: Path, place: Path, reference: mmap.mmap) -> None:
    """`verify` says what it is, and `mount` shows what there is."""
    done = forks.run(
        [sys.executable, "-m", "livedumpfs.cli", "verify", str(target)],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert dump.verdict in said and "mismatch" not in said, said
    assert done.returncode == (0 if dump.sealed else 3), said
    with mounted(target, place) as root:
        fd = os.open(root / "mem.raw", os.O_RDONLY)
        try:
            for granule in range(len(dump.entries)):
                at, length = granule * dump.granule_size, dump.granule_length(granule)
                if not is_missing(dump, granule):
                    assert os.pread(fd, length, at) == reference[at : at + length]
                    continue
                with pytest.raises(OSError) as caught:
                    os.pread(fd, length, at)
                assert caught.value.errno == errno.EIO
        finally:
            os.close(fd)


@pytest.mark.timeout(120 + 20 * (KILLS + MORE))
def test_a_killed_host_leaves_all_that_it_had_saved(tmp_path: Path) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    seed = int(os.environ.get("LIVEDUMP_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"LIVEDUMP_SEED={seed}")
    chosen, found, kills = random.Random(seed), Found(), 0
    by_commands = {*FORMATS}
    more = (Moment(chosen.random(), 0) for _ in range(MORE))
    for moment, format in zip(
        itertools.chain(moments(chosen, KILLS), more), itertools.cycle(FORMATS), strict=False
    ):
        if kills >= KILLS and found.recovered and found.missing:
            break
        kills += 1
        options = InitOptions(
            format=format, sweep_rate=RATE, granule=chosen.choice((4096, 65536)), force=True
        )
        target = tmp_path / format.name
        with Reference(SIZE) as reference:
            fd = reference.fd
            reached = Victim(tmp_path, fd).dump_until(moment, target, options)
            # Killed before the seal it has not got its name.
            unfinished = target.with_name(f"{target.name}.incomplete")
            place = target if target.exists() else unfinished
            one = look_at(place, fd, reached, tmp_path / "finished", format in by_commands)
        print(f"{format.name} killed at {moment}, reached {reached}: {one}")
        if one.recovered and not one.sealed:
            by_commands.discard(format)
        found += one
        for path in tmp_path.glob(f"{format.name}*"):
            path.unlink()
    print(f"{kills} kills: {found}")
    assert found.recovered > 0 and found.missing > 0


def look_at(
    target: Path, reference: int, reached: State | None, place: Path, commands: bool
) -> Found:
    """One target of a dead host. `commands`: also through `verify` and `mount`."""
    found = Found()
    try:
        dump = open_dump(target)
    except (InvalidDump, TargetError):
        assert reached is None, "INIT was done, and there is no dump"
        return Found(nothing=1)
    with dump, mmap.mmap(reference, SIZE, prot=mmap.PROT_READ) as memory:
        assert dump.verdict == ("consistent" if dump.sealed else "incomplete")
        assert dump.sealed or reached is not State.FINISH
        compare(dump, memory, found)
        if commands and found.recovered and not dump.sealed:
            check_commands(dump, target, place, memory)
        found.sealed = int(dump.sealed)
    return found
