# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures for all tests: loop devices that go away again, dumps written without the C core, and
hosts that run in a process of their own."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import xxhash
from aftermath import mounts_and_loops, wait_for
from hypothesis import settings

from livedumpfs import registry
from livedumpfs.dump import DumpSettings
from livedumpfs.formats import KdumpPlan, MachineInfo, Plan, plan_dump
from livedumpfs.formats import table as tables
from livedumpfs.machines import UnicornMachine
from livedumpfs.targets import Target, apply, open_in_place, open_sidecar, sidecar_path

DETACH_DEADLINE_S = 10

# Nothing is left in the source tree; a failure prints how to repeat it.
settings.register_profile("livedumpfs", database=None, print_blob=True)
settings.load_profile("livedumpfs")

FUZZ_SECONDS = float(os.environ.get("LIVEDUMP_FUZZ_SECONDS", "0"))
"""Long mode of the property tests: together they take about so long, with new examples all the
time. 0: each as many examples as it says, once."""
FUZZ_ROOM_S = 120
"""Seconds that a round may take beyond the end of its time."""
_fuzz_share = pytest.StashKey[float]()


@pytest.hookimpl(trylast=True)  # after hypothesis has marked its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share out the time of the long mode."""
    chosen = [item for item in items if FUZZ_SECONDS and item.get_closest_marker("hypothesis")]
    for item in chosen:
        item.stash[_fuzz_share] = FUZZ_SECONDS / len(chosen)
        item.add_marker(pytest.mark.timeout(FUZZ_SECONDS / len(chosen) + FUZZ_ROOM_S))


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """In the long mode a test runs again and again, from another seed each time, until its time is
    over or it fails; hypothesis then prints how to repeat that."""
    share = pyfuncitem.stash.get(_fuzz_share, None)
    if share is None:
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    given = {name: value for name, value in pyfuncitem.funcargs.items() if name in names}
    end, rounds = time.monotonic() + share, 0
    while rounds == 0 or time.monotonic() < end:
        pyfuncitem.obj(**given)
        rounds += 1
    print(f"{pyfuncitem.name}: {rounds} rounds")
    return True


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


# ---------------------------------------------------------------------- patience

DEADLINES_S = {"quiesce_deadline": 60.0, "stall_deadline": 100.0, "init_deadline": 100.0}
"""What DumpSettings has in tests that say nothing else: a starved machine, or a disk that stands
still because others use it, is no failure of a dump."""


def _set_defaults(function: Any, values: Mapping[str, object]) -> None:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__
    with_default = names[len(names) - len(defaults) :]
    assert set(values) <= set(with_default), (function, values)
    function.__defaults__ = tuple(
        values.get(name, default) for name, default in zip(with_default, defaults, strict=True)
    )


@pytest.fixture(scope="session", autouse=True)
def _patient() -> Iterator[None]:
    """In this process; hosts are told when they are started."""
    changed: dict[Any, Mapping[str, object]] = {
        DumpSettings.__init__: DEADLINES_S,
        UnicornMachine.quiesce: {"timeout": DEADLINES_S["quiesce_deadline"]},
        UnicornMachine.registers: {"timeout": DEADLINES_S["quiesce_deadline"]},
        UnicornMachine.stop: {"timeout": DEADLINES_S["quiesce_deadline"]},
    }
    before = {function: function.__defaults__ for function in changed}
    for function, values in changed.items():
        _set_defaults(function, values)
    yield
    for function, defaults in before.items():
        function.__defaults__ = defaults


DumpWriter = Callable[..., Plan]


def _entries(memory: bytes, granule: int, states: Sequence[int] | None) -> tables.Entries:
    entries = tables.empty_entries(-(-len(memory) // granule))
    for i, entry in enumerate(entries):
        data = memory[i * granule : (i + 1) * granule]
        default = tables.SAVED if any(data) else tables.HOLE
        state = default if states is None else states[i]
        entry["state"] = state
        if state == tables.SAVED:
            entry["checksum"], entry["stored"] = xxhash.xxh3_64_intdigest(data), len(data)
        if state in (tables.SAVED, tables.HOLE):
            entry["how"] = tables.BY_SWEEP
    return entries


def _write_memory(
    target: Target, plan: Plan, memory: bytes, entries: tables.Entries, granule: int
) -> None:
    for extent in plan.extents:
        end = extent.arena_offset + extent.length
        for offset in range(extent.arena_offset, end, 4096):
            state = entries["state"][offset // granule]
            page = memory[offset : offset + 4096]
            if state == tables.HOLE and not target.reads_zero:
                page = bytes(4096)
            elif state != tables.SAVED:
                continue
            target.pwrite(page, extent.target_offset + offset - extent.arena_offset)


def _write_pages(
    target: Target, plan: KdumpPlan, memory: bytes, entries: tables.Entries, granule: int
) -> int:
    """Pages of a kdump, granule by granule, and their descriptors; the end of the file."""
    end = plan.data_offset + 4096
    for number, entry in enumerate(entries):
        if entry["state"] not in (tables.SAVED, tables.HOLE):
            continue
        entry["where"], entry["stored"] = end, 0
        for offset in range(number * granule, min((number + 1) * granule, len(memory)), 4096):
            extent = next(e for e in plan.extents if 0 <= offset - e.arena_offset < e.length)
            index = (extent.target_offset + offset - extent.arena_offset) // 4096
            page, flags = memory[offset : offset + 4096], 0
            if any(page):
                if plan.codec == 1 and len(zlib.compress(page)) < 4096:
                    page, flags = zlib.compress(page), 1
                target.pwrite(page, end)
                place, end = end, end + len(page)
                entry["stored"] += len(page)
            else:
                place = plan.data_offset
            descriptor = struct.pack("<QIIQ", place, len(page), flags, 0)
            target.pwrite(descriptor, plan.descriptors_offset + 24 * index)
        if entry["stored"] == 0:
            entry["where"] = 0
    return end


@pytest.fixture(scope="session")
def write_dump() -> DumpWriter:
    """Write a dump as LiveDump and the C core would: same plan, same order.

    write_dump(path, memory, format="elf", granule=4096, machine=None, states=None, until="seal",
    verdict="consistent", meta={}, registers=(), sidecar=None, table="sidecar", force=False) ->
    Plan. `states`: of each granule, by default SAVED, and HOLE where all is zero. `until`:
    "opening", "started" (both without memory and table), "table" (not sealed), "seal".
    `compression`: of a kdump, "zlib" or "none".
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
        table: str = "sidecar",
        force: bool = False,
        compression: str = "zlib",
    ) -> Plan:
        described = dict(meta or {})
        with ExitStack() as stack:
            target = stack.enter_context(open_in_place(path, force=True))
            plan = plan_dump(
                format,
                machine or MachineInfo.flat("test", len(memory)),
                arena_size=len(memory),
                granule_size=granule,
                identity=target.identity,
                compression=compression,
                table=table,
                device_size=target.capacity,
            )
            beside = None
            if plan.book == "sidecar":
                place = sidecar or sidecar_path(str(path), os.fstat(target.fd))
                beside = stack.enter_context(open_sidecar(place, make_folder=True))
                beside.prepare(plan.book_size)
            target.prepare(plan.total_size)
            apply(plan.opening(described), target, beside)
            if until == "opening":
                return plan
            apply(plan.started(registers, described), target, beside)
            if until == "started":
                return plan
            entries = _entries(memory, granule, states)
            total_size = None
            if isinstance(plan, KdumpPlan):
                total_size = _write_pages(target, plan, memory, entries, granule)
            else:
                _write_memory(target, plan, memory, entries, granule)
            book = beside or target
            book.pwrite(tables.build_table(entries, plan.dump_id), plan.table_offset)
            if until == "seal":
                worth: Any = verdict
                steps = plan.seal(worth, described, registers, total_size=total_size)
                apply(steps, target, beside)
            return plan

    return write


# -------------------------------------------------------------------------- hosts

TOP = Path(__file__).resolve().parents[1]
HOST_DEADLINE_S = 60.0
_HOST = """
import sys
from functools import partial
from livedumpfs.dump import DumpSettings
from livedumpfs.host import Host
from livedumpfs.machines import UnicornMachine
ram, mountpoint, group, others, reference, quiesce, stall, init = sys.argv[1:]
machine = UnicornMachine(ram, 2, dirty_share=0.5)
group = int(group) if group else None
patient = DumpSettings(
    quiesce_deadline=float(quiesce), stall_deadline=float(stall), init_deadline=float(init)
)
host = Host(machine, mountpoint, allow_other=others == "others", group=group, settings=patient)
host.dump.init = partial(host.dump.init, reference=int(reference))
arena = machine.arena
host.run(lambda: (machine.wait_ready(), print("ready", arena.address, arena.size, flush=True)))
print("ended", flush=True)
"""


class RunningHost:
    """The built-in guest on 2 vCPUs, writing hard, served by another process."""

    def __init__(
        self,
        folder: Path,
        number: int,
        ram: str,
        group: int | None,
        others: bool,
        environment: Mapping[str, str],
    ) -> None:
        self.mountpoint = folder / f"mount-{number}"
        self.mountpoint.mkdir(exist_ok=True)
        self.device = str(self.mountpoint / "livedump")
        self.log = folder / f"host-{number}.log"
        self.ram, self.group, self.others = ram, group, others
        self.reference = os.memfd_create("reference")
        """The core copies the machine's memory there inside each pause."""
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(TOP),
            "XDG_RUNTIME_DIR": str(folder),
            "LIVEDUMPFS_STATE": str(folder / "state"),
            **environment,
        }
        self.start()

    def start(self) -> None:
        """Also again, after its process was killed."""
        group = "" if self.group is None else str(self.group)
        others = "others" if self.others else ""
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                # -P: the package that the environment names, not the one in the working directory.
                [
                    sys.executable,
                    "-P",
                    "-c",
                    _HOST,
                    self.ram,
                    str(self.mountpoint),
                    group,
                    others,
                    str(self.reference),
                    *map(str, DEADLINES_S.values()),
                ],
                env=self.environment,
                pass_fds=[self.reference],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + HOST_DEADLINE_S
        while not (ready := re.search(r"^ready (\d+) (\d+)$", self.log.read_text(), re.MULTILINE)):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"the host is not ready: {self.log.read_text()}"
            time.sleep(0.02)
        self.address, self.size = int(ready[1]), int(ready[2])
        os.ftruncate(self.reference, self.size)

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
        if self.reference >= 0:
            os.close(self.reference)
            self.reference = -1
        if self.process.poll() is None:
            self.kill()
        if self.is_mounted():
            subprocess.run(["fusermount", "-u", "-z", str(self.mountpoint)], timeout=30, check=True)


HostMaker = Callable[..., RunningHost]
_open_folders: list[Path] = []


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """By no test of this session: others may have theirs."""
    folder = tmp_path_factory.getbasetemp()
    yield
    wait_for(
        lambda: not mounts_and_loops(folder, *_open_folders),
        lambda: list(mounts_and_loops(folder, *_open_folders)),
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter; pytest closes its own to them."""
    with tempfile.TemporaryDirectory(prefix="livedump-test-") as folder:
        Path(folder).chmod(0o755)
        _open_folders.append(Path(folder))
        yield Path(folder)


@pytest.fixture
def run_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostMaker]:
    """run_host(ram="16MiB", group=None, folder=tmp_path, others=False, environment={}) ->
    RunningHost. `others`: let other users into the mount; `environment`: of its process.

    They end, in good order, with the test. Their mounts, logs and registry are in `folder`.
    """
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("LIVEDUMP_DEVICE", raising=False)
    # Clients in this process are not to find the hosts of the machine that tests run on.
    monkeypatch.setattr(registry, "SYSTEM_DIRECTORY", str(tmp_path / "none"))
    hosts: list[RunningHost] = []

    def run(
        ram: str = "16MiB",
        group: int | None = None,
        folder: Path = tmp_path,
        others: bool = False,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> RunningHost:
        hosts.append(RunningHost(folder, len(hosts), ram, group, others, environment))
        return hosts[-1]

    try:
        yield run
        for host in hosts:
            if host.process.poll() is None:
                host.end()
    finally:
        for host in hosts:
            host.clean()
