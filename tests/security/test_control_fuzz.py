# SPDX-License-Identifier: GPL-2.0-or-later
"""Anything at all on the ioctls and control files of a host, from several processes at once: it
must live, keep nothing, and take a good dump afterwards.

LIVEDUMP_FUZZ_REQUESTS is their number, LIVEDUMP_FUZZ_SEED repeats a run as far as the processes'
timing lets it. `make fuzz-control` is the long mode; its host has the C core built with
AddressSanitizer (LIVEDUMP_FUZZ_TREE is where).
"""

from __future__ import annotations

import collections
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.abi import Backend, Verdict
from livedumpfs.cli.proof import prove_dump
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.proc import proc_text

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
REQUESTS = int(os.environ.get("LIVEDUMP_FUZZ_REQUESTS", "1000"))
SEED = os.environ.get("LIVEDUMP_FUZZ_SEED") or str(random.randrange(1 << 32))
TREE = os.environ.get("LIVEDUMP_FUZZ_TREE")
PROCESSES = 4
WARM_UP = 2000
DEADLINE = 300.0 + REQUESTS / 50
ENOUGH = 10
"""So many times more, until each kind of request has succeeded."""
GROWTH = 16 << 20
"""Bytes by which the host may be larger after all requests than after the first few thousand."""
EXPECTED = {
    "ok", "EACCES", "EBUSY", "ECANCELED", "EEXIST", "EFAULT", "EINVAL", "EISDIR", "ENAMETOOLONG",
    "ENODATA", "ENOENT", "ENOMEM", "ENOTTY", "ENXIO", "EPROTO", "ESPIPE",
    "ETIMEDOUT",  # of machine/registers: a vCPU that does not get its turn
    "EIO",  # of a snapshot's lost pages; a step that failed so has its sentence instead
}  # fmt: skip
FUZZER = Path(__file__).with_name("control_fuzzer.py")


def instrumented() -> dict[str, str]:
    """The environment of a host whose C core reports what it does to memory."""
    if not TREE:
        return {}
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # Faults on armed pages are ours to handle; Python never frees all.
    options = "detect_leaks=0:handle_segv=0:allow_user_segv_handler=1:quarantine_size_mb=8"
    return {
        "LD_PRELOAD": library, "ASAN_OPTIONS": options, "PYTHONPATH": os.path.abspath(TREE),
        "PYTHONMALLOC": "malloc",
    }  # fmt: skip


@pytest.fixture
def host(run_host: HostMaker) -> Host:
    return run_host(environment=instrumented())


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    """What control_fuzzer.TARGETS are."""
    folder = tmp_path / "targets"
    (folder / "folder").mkdir(parents=True)
    os.mkfifo(folder / "fifo")
    (folder / "null").symlink_to("/dev/null")
    return folder


def start_fuzzer(
    host: Host, folder: Path, seed: str, share: str, may_wait: bool
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, FUZZER, host.mountpoint, seed, share, str(int(may_wait))],
        cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def fuzz(host: Host, folder: Path, seed: str, requests: int) -> dict[str, collections.Counter[str]]:
    """All processes to their end; what came of each kind of request."""
    share = str(requests // PROCESSES)
    fuzzers = [start_fuzzer(host, folder, f"{seed}-{n}", share, n > 0) for n in range(PROCESSES)]
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    try:
        wait_for(host, fuzzers)
        for fuzzer in fuzzers:
            out, err = fuzzer.communicate(timeout=DEADLINE)
            assert fuzzer.returncode == 0, err
            for kind, results in json.loads(out).items():
                found[kind].update(results)
    finally:
        for fuzzer in fuzzers:
            fuzzer.kill()
            fuzzer.communicate()
    return found


def wait_for(host: Host, fuzzers: list[subprocess.Popen[str]]) -> None:
    """The first fuzzer never waits for a sweep; once it has ended, it may be that no other process
    releases the others' dumps."""
    deadline = time.monotonic() + DEADLINE
    while any(fuzzer.poll() is None for fuzzer in fuzzers):
        assert host.process.poll() is None, host.log.read_text()[-4000:]
        assert time.monotonic() < deadline, f"seed {SEED}: {host.read('livedump')}"
        if fuzzers[0].poll() is not None:
            with Client(host.device) as client:
                client.release()
        time.sleep(0.2)


def size_of(host: Host) -> int:
    """Bytes of private memory."""
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) << 10


def open_files(host: Host) -> list[str]:
    """Where its descriptors lead; those of its own children come and go."""
    folder = Path(f"/proc/{host.process.pid}/fd")
    return sorted(os.readlink(folder / fd).partition(":")[0] for fd in os.listdir(folder))


def settled(host: Host) -> list[str]:
    """Its open files once those of the clients that ended are closed, which the kernel tells it
    later."""
    with Client(host.device) as client:
        client.release()
    before: list[str] = []
    deadline = time.monotonic() + DEADLINE
    while (now := open_files(host)) != before:
        assert time.monotonic() < deadline, now
        before = now
        time.sleep(0.2)
    return now


def expect_closed(host: Host, before: list[str]) -> None:
    """It comes to have no more open files than `before`."""
    with Client(host.device) as client:
        client.release()
    deadline = time.monotonic() + DEADLINE
    while more := collections.Counter(open_files(host)) - collections.Counter(before):
        assert time.monotonic() < deadline, f"seed {SEED}: still open: {more}"
        time.sleep(0.05)


def reset(host: Host) -> None:
    """The settings that fuzzing left, as they are at the start."""
    with Client(host.device) as client:
        client.release()
    for name, value in (
        ("type", "auto"), ("format", "elf"), ("policy", "block"), ("arming", "swap"),
        ("buffer_size", "16384"), ("granule", "0"), ("sweep_rate", "0"), ("max_age", "0"),
        ("stall_deadline", "10"), ("init_deadline", "300"), ("quiesce_deadline", "1"),
        ("force", "0"),
    ):  # fmt: skip
        host.write(f"control/{name}", value)


def check_dump(host: Host, target: Path, backend: Backend | None = None) -> None:
    """The next dump is consistent, its ledger right, and each byte as snapshot/ showed it before
    anything was saved."""
    reset(host)
    with Client(host.device) as client:
        client.init(str(target), InitOptions(force=True, backend=backend))
        client.start()
        reference = (host.mountpoint / "snapshot/mem.raw").read_bytes()
        client.sweep()
        assert client.finish(DEADLINE).verdict is Verdict.CONSISTENT
        client.release()
    with open_dump(str(target)) as dump:
        assert prove_dump(dump).ok
        assert dump.read_physical(0, len(reference)) == reference
    target.unlink()
    host.runs_on()


@pytest.mark.timeout(3 * DEADLINE)
def test_anything_on_the_control_interface(host: Host, targets: Path, tmp_path: Path) -> None:
    print(f"LIVEDUMP_FUZZ_SEED={SEED} LIVEDUMP_FUZZ_REQUESTS={REQUESTS}")
    if TREE:
        assert os.path.abspath(TREE) in proc_text(f"/proc/{host.process.pid}/maps")
    fuzz(host, targets, f"warm-{SEED}", WARM_UP)
    check_dump(host, tmp_path / "out")
    check_dump(host, tmp_path / "out", Backend.UFFD)  # opens what the arena keeps open from then on
    files, size = settled(host), size_of(host)
    begin = time.monotonic()
    found = fuzz(host, targets, SEED, REQUESTS)
    took = time.monotonic() - begin
    for kind, results in sorted(found.items()):
        print(f"  {kind:<12} {dict(results.most_common())}")
    check_dump(host, tmp_path / "out")
    grown = size_of(host) - size
    print(f"  {sum(map(sum, (r.values() for r in found.values())))} requests in {took:.0f} s, "
          f"{len(files)} files, {size >> 10} KiB, {grown >> 10:+} KiB")  # fmt: skip
    expect_closed(host, files)
    if grown >= GROWTH and not TREE:
        # Threads of libfuse that had to wait for a CPU, or a leak: that takes as much again.
        before = size_of(host)
        fuzz(host, targets, f"again-{SEED}", REQUESTS)
        check_dump(host, tmp_path / "out")
        assert size_of(host) - before < GROWTH, (grown, size_of(host) - before)
    log = host.log.read_text()
    assert "failed" not in log and "Sanitizer" not in log, log[-4000:]
    # What needs a dump in just that state succeeds a few times in 5,000 requests, or not.
    for number in range(ENOUGH):
        if not missing(found):
            break
        for kind, results in fuzz(host, targets, f"more-{number}-{SEED}", REQUESTS).items():
            found[kind] += results
    check_reached(found)


def missing(found: dict[str, collections.Counter[str]]) -> list[str]:
    """Kinds of requests that never succeeded."""
    rare = ("step", "typed_sweep") if REQUESTS >= 100_000 else ()
    kinds = ("typed_init", "write", "read", "status", "release", *rare)
    return [kind for kind in kinds if not found[kind]["ok"]]


def check_reached(found: dict[str, collections.Counter[str]]) -> None:
    """Nothing went wrong in a way that was not foreseen, and every step was taken sometimes."""
    assert set().union(*found.values()) <= EXPECTED, found
    assert not missing(found), f"seed {SEED}: {missing(found)} never succeeded"
    assert set(found["unknown"]) == {"ENOTTY"}
