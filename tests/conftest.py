# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures for all tests: loop devices that go away again, dumps written without the C core, and
hosts that run in a process of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import xxhash
from hypothesis import settings

from livedumpfs import registry
from livedumpfs.formats import MachineInfo, Plan, plan_dump, table
from livedumpfs.targets import apply, open_sidecar, open_target, sidecar_path

DETACH_DEADLINE_S = 10

# Nothing is left in the source tree; a failure prints how to repeat it.
settings.register_profile("livedumpfs", database=None, print_blob=True)
settings.load_profile("livedumpfs")


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


# Found now: a test may take shutil.which or PATH away.
LOSETUP = _tool("losetup")


def _loop_obstacle() -> str | None:
    if os.geteuid() != 0:
        return "loop devices need root"
    if not os.path.exists("/dev/loop-control"):
        return "this kernel has no loop devices"
    return None if LOSETUP else "losetup (util-linux) is not installed"


def _losetup(*arguments: str) -> str:
    command = [str(LOSETUP), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}: {run.stderr.strip()}")
    return run.stdout.strip()


def _detach(device: str, backing: Path) -> None:
    """Detach and wait until the kernel has let go; a device that is still in use fails the test."""
    deadline = time.monotonic() + DETACH_DEADLINE_S
    while f"{device}:" in _losetup("-j", str(backing)):
        assert time.monotonic() < deadline, f"{device} is still in use after the test"
        try:
            _losetup("-d", device)
        except RuntimeError:
            continue
        finally:
            time.sleep(0.02)
    backing.unlink(missing_ok=True)


LoopMaker = Callable[..., str]


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[LoopMaker]:
    """loop_device(size, read_only=False, directory=None) -> "/dev/loopN" with `size` bytes.

    `directory`: where the backing file lies, e.g. on a tmpfs of the test. All are detached at the
    end of the test, however it ends.
    """
    obstacle = _loop_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    with ExitStack() as stack:

        def make(size: int, *, read_only: bool = False, directory: Path | None = None) -> str:
            backing = (directory or tmp_path) / f"loop-{len(os.listdir(directory or tmp_path))}.img"
            with open(backing, "xb") as file:
                file.truncate(size)
            options = ["--read-only"] if read_only else []
            try:
                device = _losetup("--find", "--show", *options, str(backing))
            except BaseException:
                backing.unlink()
                raise
            stack.callback(_detach, device, backing)
            return device

        yield make


DumpWriter = Callable[..., Plan]


def _entries(memory: bytes, granule: int, states: Sequence[int] | None) -> table.Entries:
    entries = table.empty_entries(-(-len(memory) // granule))
    for i, entry in enumerate(entries):
        data = memory[i * granule : (i + 1) * granule]
        default = table.SAVED if any(data) else table.HOLE
        state = default if states is None else states[i]
        entry["state"] = state
        if state == table.SAVED:
            entry["checksum"], entry["stored"] = xxhash.xxh3_64_intdigest(data), len(data)
        if state in (table.SAVED, table.HOLE):
            entry["how"] = table.BY_SWEEP
    return entries


@pytest.fixture(scope="session")
def write_dump() -> DumpWriter:
    """Write a dump as LiveDump and the C core would: same plan, same order.

    write_dump(path, memory, format="elf", granule=4096, machine=None, states=None, until="seal",
    verdict="consistent", meta={}, registers=(), sidecar=None, force=False) -> Plan. `states`: of
    each granule, by default SAVED, and HOLE where all is zero. `until`: "opening", "started" (both
    without memory and table), "table" (not sealed), "seal".
    """

    def write(
        path: str | Path,
        memory: bytes,
        *,
        format: str = "elf",
        granule: int = 4096,
        machine: MachineInfo | None = None,
        states: Sequence[int] | None = None,
        until: str = "seal",
        verdict: str = "consistent",
        meta: Mapping[str, object] | None = None,
        registers: Sequence[Mapping[str, int]] = (),
        sidecar: str | None = None,
        force: bool = False,
    ) -> Plan:
        described = dict(meta or {})
        with ExitStack() as stack:
            target = stack.enter_context(open_target(path, force=force))
            plan = plan_dump(
                format,
                machine or MachineInfo.flat("test", len(memory)),
                arena_size=len(memory),
                granule_size=granule,
                identity=target.identity,
            )
            beside = None
            if plan.book == "sidecar":
                place = sidecar or sidecar_path(str(path), os.fstat(target.fd))
                beside = stack.enter_context(open_sidecar(place))
                beside.prepare(plan.book_size)
            target.prepare(plan.total_size)
            apply(plan.opening(described), target, beside)
            if until == "opening":
                return plan
            apply(plan.started(registers, described), target, beside)
            if until == "started":
                return plan
            entries = _entries(memory, granule, states)
            for extent in plan.extents:
                end = extent.arena_offset + extent.length
                for offset in range(extent.arena_offset, end, 4096):
                    state = entries["state"][offset // granule]
                    page = memory[offset : offset + 4096]
                    if state == table.HOLE and not target.reads_zero:
                        page = bytes(4096)
                    elif state != table.SAVED:
                        continue
                    target.pwrite(page, extent.target_offset + offset - extent.arena_offset)
            book = beside or target
            book.pwrite(table.build_table(entries, plan.dump_id), plan.table_offset)
            if until == "seal":
                apply(plan.seal(verdict, described, registers), target, beside)  # type: ignore[arg-type]
            return plan

    return write


# -------------------------------------------------------------------------- hosts

TOP = Path(__file__).resolve().parents[1]
HOST_DEADLINE_S = 60.0
_HOST = """
import sys
from livedumpfs.host import Host
from livedumpfs.machines import UnicornMachine
ram, mountpoint, group = sys.argv[1:]
machine = UnicornMachine(ram, 2, dirty_share=0.5)
host = Host(machine, mountpoint, group=int(group) if group else None)
host.run(lambda: (machine.wait_ready(), print("ready", flush=True)))
print("ended", flush=True)
"""


class RunningHost:
    """The built-in guest on 2 vCPUs, writing hard, served by another process."""

    def __init__(self, folder: Path, number: int, ram: str, group: int | None) -> None:
        self.mountpoint = folder / f"mount-{number}"
        self.mountpoint.mkdir(exist_ok=True)
        self.device = str(self.mountpoint / "livedump")
        self.log = folder / f"host-{number}.log"
        self.ram, self.group = ram, group
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(TOP),
            "XDG_RUNTIME_DIR": str(folder),
            "LIVEDUMPFS_STATE": str(folder / "state"),
        }
        self.start()

    def start(self) -> None:
        """Also again, after its process was killed."""
        group = "" if self.group is None else str(self.group)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _HOST, self.ram, str(self.mountpoint), group],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + HOST_DEADLINE_S
        while "ready" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"the host is not ready: {self.log.read_text()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """As the kernel's OOM killer would."""
        self.process.kill()
        self.process.wait(HOST_DEADLINE_S)

    def read(self, name: str) -> str:
        return (self.mountpoint / name).read_text()

    def write(self, name: str, value: str) -> None:
        (self.mountpoint / name).write_text(value)

    def runs_on(self) -> None:
        """Both vCPUs make progress: their registers change."""
        before = self.read("machine/registers").split("vcpu")
        deadline = time.monotonic() + HOST_DEADLINE_S
        while set(before[1:]) & set(self.read("machine/registers").split("vcpu")):
            state = self.read("machine/state")
            assert time.monotonic() < deadline, f"the guest stands still: {state}"
            time.sleep(0.02)

    def is_mounted(self) -> bool:
        return f" {self.mountpoint} " in Path("/proc/self/mountinfo").read_text()

    def end(self) -> str:
        """SIGTERM, and what it left: nothing. Its log."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(HOST_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        log = self.log.read_text()
        assert code == 0, f"the host ended with {code}: {log}"
        assert not self.is_mounted()
        return log

    def clean(self) -> None:
        """Whatever happened: no process and no mount is left behind."""
        if self.process.poll() is None:
            self.kill()
        if self.is_mounted():
            subprocess.run(["fusermount", "-u", "-z", str(self.mountpoint)], timeout=30, check=True)


HostMaker = Callable[..., RunningHost]


@pytest.fixture
def run_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostMaker]:
    """run_host(ram="16MiB", group=None, folder=tmp_path) -> RunningHost.

    They end, in good order, with the test. Their mounts, logs and registry are in `folder`.
    """
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("LIVEDUMP_DEVICE", raising=False)
    # Clients in this process are not to find the hosts of the machine that tests run on.
    monkeypatch.setattr(registry, "SYSTEM_DIRECTORY", str(tmp_path / "none"))
    hosts: list[RunningHost] = []

    def run(ram: str = "16MiB", group: int | None = None, folder: Path = tmp_path) -> RunningHost:
        hosts.append(RunningHost(folder, len(hosts), ram, group))
        return hosts[-1]

    try:
        yield run
        for host in hosts:
            if host.process.poll() is None:
                host.end()
    finally:
        for host in hosts:
            host.clean()
