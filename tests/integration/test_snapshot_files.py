# SPDX-License-Identifier: GPL-2.0-or-later
"""snapshot/ of a real mount, while the machine runs and the sweep is slow."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from livedumpfs.abi import Format, Policy, State, Verdict
from livedumpfs.cli.proof import prove_dump
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.machines.ledger import verify_ledger
from livedumpfs.machines.unicorn import BUILT_IN_GUEST
from tests.fixtures.refusals import refused

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DEADLINE = 300.0
MIB = 1 << 20
SIZE = 16 * MIB
PAGE = 4096
RATE = MIB // 2
"""Bytes a second of a sweep that takes seconds."""
NAMES = ("info.json", "mem.lime", "mem.raw", "vmcore")


@pytest.fixture
def host(run_host: HostMaker) -> Host:
    return run_host()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def sha256(path: Path) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def random_places(seed: int, count: int, size: int) -> list[tuple[int, int]]:
    """Places of any length up to 256 KiB, some at and behind the end."""
    chosen = random.Random(seed)
    return [
        (chosen.randrange(size + PAGE), chosen.choice((1, 100, PAGE, 70_000, 256 << 10)))
        for _ in range(count)
    ]


# ----------------------------------------------------------------------------- the tree


def test_the_directory_is_there_from_start_to_release(host: Host, tmp_path: Path) -> None:
    root = host.mountpoint
    with Client(host.device) as client:
        for _ in range(2):
            assert "snapshot" not in os.listdir(root) and not os.listdir(root / "dumps")
            refused(errno.ENOENT, lambda: os.stat(root / "snapshot"))
            client.init(str(tmp_path / "out"))
            assert "snapshot" not in os.listdir(root)
            client.start()
            assert "snapshot" in os.listdir(root)
            (number,) = os.listdir(root / "dumps")
            assert os.readlink(root / "snapshot") == f"dumps/{number}"
            refused(errno.EINVAL, lambda: os.readlink(root / "dumps"))
            assert tuple(sorted(os.listdir(root / "snapshot"))) == NAMES
            client.sweep()
            assert list(client.progress())[-1].state is State.FINISH
            assert tuple(sorted(os.listdir(root / "snapshot"))) == NAMES
            client.release()
            refused(errno.ENOENT, lambda: os.stat(root / "snapshot" / "mem.raw"))


def test_sizes_modes_and_contents(host: Host) -> None:
    root = host.mountpoint / "snapshot"
    with Client(host.device) as client:
        client.init(None)
        client.start()
        assert os.stat(root / "mem.raw").st_size == SIZE
        assert os.stat(root / "mem.lime").st_size == SIZE + 32
        for name in NAMES:
            assert os.stat(root / name).st_mode & 0o777 == 0o400
            if name != "info.json":  # its counters go on
                assert len((root / name).read_bytes()) == os.stat(root / name).st_size
            refused(errno.EACCES, lambda name=name: os.open(root / name, os.O_RDWR))  # type: ignore[misc]
        raw = (root / "mem.raw").read_bytes()
        assert (root / "mem.lime").read_bytes()[32:] == raw
        with open(root / "vmcore", "rb") as file:
            (load,) = ELFFile(file).iter_segments("PT_LOAD")
            assert load.data() == raw
        info = json.loads((root / "info.json").read_text())
        assert (info["state"], info["verdict"], info["so_far"]) == ("start", None, "consistent")
        assert info["instant"]["wall_ns"] > 0 and len(info["registers"]) == 2
        shown = json.loads(host.read("machine/registers.json"))
        assert shown["snapshot"] == info["registers"]
        report = verify_ledger(lambda at, length: raw[at : at + length], SIZE)
        assert report.ok, report.message
        client.release()


# ------------------------------------------------------------------------ the right bytes


def test_mem_raw_during_the_sweep_is_what_the_target_gets(
    run_host: HostMaker, tmp_path: Path
) -> None:
    host = run_host(rate=10)  # a hard writer would leave nothing to the sweep
    raw, target = host.mountpoint / "snapshot" / "mem.raw", tmp_path / "out"
    with Client(host.device) as client:
        client.init(str(target), InitOptions(format=Format.RAW, sweep_rate=RATE))
        client.start()
        sums = [sha256(raw)]
        client.sweep()
        sums.append(sha256(raw))
        assert client.status().state is State.SWEEP
        assert list(client.progress())[-1].verdict is Verdict.CONSISTENT
        sums.append(sha256(raw))
        client.release()
    assert set(sums) == {sha256(target)}
    host.runs_on()


def test_four_readers_under_full_load_get_the_bytes_of_the_target(
    host: Host, tmp_path: Path
) -> None:
    """1,000 reads of each file before, during and after the sweep, compared with the target when it
    is finished and proved by its checksums."""
    target = tmp_path / "out"

    def reads(seed: int) -> list[tuple[str, int, int, bytes]]:
        found = []
        with ExitStack() as stack:
            root = host.mountpoint / "snapshot"
            fds = {name: stack.enter_context(opened(root / name)) for name in heads}
            for at, length in random_places(seed, 250, SIZE):
                for name, fd in fds.items():
                    data = os.pread(fd, length, at)
                    found.append((name, at, length, hashlib.sha256(data).digest()))
        return found

    with Client(host.device) as client, ThreadPoolExecutor(4) as pool:
        client.init(str(target), InitOptions(format=Format.RAW, sweep_rate=2 * RATE))
        client.start()
        heads = {"mem.raw": b""}
        for name in ("vmcore", "mem.lime"):
            with opened(host.mountpoint / "snapshot" / name) as fd:
                heads[name] = os.pread(fd, os.fstat(fd).st_size - SIZE, 0)
        jobs = [pool.submit(reads, seed) for seed in range(4)]
        client.sweep()
        assert list(client.progress())[-1].verdict is Verdict.CONSISTENT
        found = [one for job in jobs for one in job.result(DEADLINE)]
        client.release()
    memory = target.read_bytes()
    assert len(found) == 3000
    files = {name: head + memory for name, head in heads.items()}
    for name, at, length, digest in found:
        right = hashlib.sha256(files[name][at : at + length]).digest()
        assert right == digest, (name, at, length)
    with open_dump(str(target)) as dump:
        assert prove_dump(dump).ok


def test_gdb_prints_a_global_before_the_sweep(host: Host) -> None:
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("gdb is not installed")
    root = host.mountpoint / "snapshot"
    with open(BUILT_IN_GUEST, "rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        (place,) = (s["st_value"] for s in symbols.iter_symbols() if s.name == "ledger")
    with Client(host.device) as client:
        client.init(None)
        client.start()
        done = subprocess.run(
            [gdb, "-nx", "-batch", "-ex", "print/x ledger[0].magic", "-ex", "print/x $rip",
             "-ex", f"x/4xg {place:#x}", BUILT_IN_GUEST, root / "vmcore"],
            capture_output=True, text=True, timeout=DEADLINE, check=True,
            env={**os.environ, "DEBUGINFOD_URLS": ""},
        )  # fmt: skip
        with opened(root / "mem.raw") as fd:
            words = np.frombuffer(os.pread(fd, 32, place), dtype="<u8")
        registers = json.loads(host.read("machine/registers.json"))["snapshot"]
        assert f" {registers[0]['rip']:#018x}\n" in host.read("machine/registers")
        assert client.status().state is State.START
        client.release()
    assert f"$1 = {int(words[0]):#x}" in done.stdout, done.stdout + done.stderr
    assert f"$2 = {registers[0]['rip']:#x}" in done.stdout
    assert all(f"{int(word):#018x}" in done.stdout for word in words)


def test_mem_and_registers_go_on_beside_the_snapshot(host: Host) -> None:
    root, deadline = host.mountpoint, time.monotonic() + DEADLINE
    with Client(host.device) as client:
        client.init(None)
        client.start()
        raw = (root / "snapshot" / "mem.raw").read_bytes()
        kept = json.loads(host.read("snapshot/info.json"))["registers"]
        seen: set[str] = set()
        while (live := (root / "mem").read_bytes()) == raw or len(seen) < 3:
            assert time.monotonic() < deadline, "the memory does not change"
            shown = json.loads(host.read("machine/registers.json"))
            assert shown["snapshot"] == kept
            seen.add(json.dumps(shown["live"]))
        assert len(live) == SIZE
        assert (root / "snapshot" / "mem.raw").read_bytes() == raw
        client.release()


# ------------------------------------------------------------------------------- the end


def old_or_nothing(fd: int, offset: int, right: bytes | None = None) -> None:
    """An open image of a released dump: its own bytes if the kernel still has them, or ENODATA.
    `right` None: nothing near was read, so the kernel cannot have them."""
    try:
        found = os.pread(fd, 100, offset)
    except OSError as error:
        assert error.errno == errno.ENODATA
    else:
        assert found == right


def test_open_files_of_a_released_dump_have_its_bytes_or_none(host: Host) -> None:
    root, far = host.mountpoint / "snapshot", SIZE // 2
    with Client(host.device) as client:
        client.init(None)
        client.start()
        fds = {name: os.open(root / name, os.O_RDONLY) for name in NAMES}
        try:
            first = {name: os.pread(fd, 100, 0) for name, fd in fds.items()}
            info = fds.pop("info.json")
            client.release()
            for step in ("released", "the next dump"):
                refused(errno.ENODATA, lambda: os.pread(info, 100, 0))
                refused(errno.ENODATA, lambda: os.pread(info, 100, 7))
                for name, fd in fds.items():
                    old_or_nothing(fd, 0, first[name])
                    old_or_nothing(fd, far)
                    assert os.fstat(fd).st_nlink == 0
                if step == "released":
                    client.init(None)
                    client.start()
            for name in NAMES:
                with opened(root / name) as new:
                    assert len(os.pread(new, 100, far if name != "info.json" else 0)) == 100
        finally:
            for fd in (*fds.values(), info):
                os.close(fd)
        client.release()


def test_images_can_be_mapped(host: Host) -> None:
    """Shared and private; what was touched stays right after RELEASE."""
    with Client(host.device) as client:
        client.init(None)
        client.start()
        path = host.mountpoint / "snapshot" / "mem.raw"
        right = path.read_bytes()
        with opened(path) as fd:
            shared = mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
            own = mmap.mmap(fd, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        with shared, own:
            assert shared[:] == right == own[:]
            own[7:9] = b"!!"
            assert shared[7:9] == right[7:9]
            client.release()
            assert own[:PAGE] == right[:7] + b"!!" + right[9:PAGE]


def test_what_was_read_needs_no_host(host: Host) -> None:
    """It is in the page cache. Where the kernel had to take it back meanwhile, once more."""
    with Client(host.device) as client, ThreadPoolExecutor(1) as pool:
        client.init(None)
        client.start()
        with opened(host.mountpoint / "snapshot" / "mem.raw") as fd:
            for _ in range(20):
                right = os.pread(fd, MIB, 0)
                host.process.send_signal(signal.SIGSTOP)
                try:
                    again = pool.submit(os.pread, fd, MIB, 0)
                    done, _ = wait([again], 5)
                finally:
                    host.process.send_signal(signal.SIGCONT)
                assert again.result(DEADLINE) == right
                if done:
                    break
            assert done, "each time it was asked"
        client.release()


def test_a_reader_that_is_overtaken_by_the_release_ends(host: Host) -> None:
    """It reads on until it is told."""
    ends: list[int | None] = []

    def read_on() -> None:
        with opened(host.mountpoint / "snapshot" / "mem.raw") as fd:
            begun.set()
            try:
                while os.pread(fd, MIB, 5 * MIB):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # ask the host again
            except OSError as error:
                ends.append(error.errno)

    with Client(host.device) as client:
        client.init(None)
        client.start()
        begun = threading.Event()
        thread = threading.Thread(target=read_on)
        thread.start()
        assert begun.wait(DEADLINE)
        client.release()
        thread.join(DEADLINE)
    assert ends == [errno.ENODATA]


def test_lost_pages_are_io_errors_and_the_others_are_not(host: Host) -> None:
    """A store of 1 MiB, which nothing can free, and 8 MiB that the guest writes."""
    with Client(host.device) as client:
        client.init(None, InitOptions(policy=Policy.FAIL, pool=MIB))
        client.start()
        deadline = time.monotonic() + DEADLINE
        while (before := client.status()).lost == 0:
            assert time.monotonic() < deadline, before
        failed = 0
        with opened(host.mountpoint / "snapshot" / "mem.raw") as fd:
            for at in range(0, SIZE, PAGE):
                try:
                    assert len(os.pread(fd, PAGE, at)) == PAGE
                except OSError as error:
                    assert error.errno == errno.EIO
                    failed += PAGE
        after = client.status()
        assert 0 < failed <= after.lost < SIZE
        assert (after.verdict, after.so_far) == (Verdict.NONE, Verdict.TORN)
        with open(host.mountpoint / "snapshot" / "vmcore", "rb") as file:
            assert ELFFile(file)["e_type"] == "ET_CORE"
        client.release()
    host.runs_on()
