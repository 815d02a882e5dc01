# SPDX-License-Identifier: GPL-2.0-or-later
"""Live vmcores of the Debian guest in crash and drgn, with the kernel's symbols: the tasks that the
guest has, and the same stacks in both.

Not in `make test`, for the symbols are 858 MB: `make test-qemu`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import drgn
import pytest
from drgn.helpers.linux import cpu_curr, for_each_task, get_dmesg

from livedumpfs.cli.main import main as cli
from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump
from livedumpfs.linux import Kernel, tasks
from livedumpfs.machines.qemu.registers import VcpuState
from tests.fixtures.html_pages import parse
from tests.fixtures.mounted_dumps import Mounted
from tests.fixtures.program_files import program_command, program_file
from tests.qemu.gdb_scripts import run_gdb, symbols_of

Guest = Any  # conftest.Guest
BUILD = Path(__file__).resolve().parents[2] / "guest" / "linux" / "build"
CRASH, SYMBOLS = BUILD / "crash", BUILD / "vmlinux"
DEADLINE_S = 300.0
VCPUS = 2
TRIES = 50
TEXT = 0xFFFF_FFFF_8000_0000
"""The kernel's code is above."""
STACKS = range(0xFFFF_8000_0000_0000, 0xFFFF_FE00_0000_0000)
"""Where the kernel's are, but for the small ones on which it begins."""
SWITCHING = ("__switch_to_asm", "__switch_to")
"""A vCPU has one task's stack there, and still the other one as its current."""
NAME_SIZE = 15
"""Of task_struct.comm; /proc has a kernel thread's whole name."""

pytestmark = [pytest.mark.debuggers, pytest.mark.timeout(900)]

_TASK = re.compile(
    r"^>? +(\d+) +\d+ +\d+ +[0-9a-f]{16} +[A-Z]{2} +[\d.]+ +\d+ +\d+ +(.*)$", re.MULTILINE
)
_STACK = re.compile(r'^PID: (\d+) +TASK: [0-9a-f]+ +CPU: (\d+) +COMMAND: "', re.MULTILINE)
_FRAME = re.compile(
    r"^ *#\d+ \[[0-9a-f]+\] .* at ([0-9a-f]{16})$|^ +\[exception RIP: .*\n +RIP: ([0-9a-f]{16}) ",
    re.MULTILINE,
)

Tasks = dict[int, str]
"""By process id."""


def count_lists(guest: Guest) -> int:
    return sum(line.startswith("guest: tasks") for line in guest.lines())


def rest(guest: Guest) -> None:
    """Until its init starts no more processes."""
    guest.wait_for(lambda: "guest: up" in guest.lines())


def next_tasks(guest: Guest) -> Tasks:
    """As the guest lists them from now on: the list that it prints next may have begun already."""
    seen = count_lists(guest)
    guest.wait_for(lambda: count_lists(guest) >= seen + 2)
    return dict(guest.tasks())


def check_tasks(found: Tasks, before: Tasks, after: Tasks) -> None:
    """`found`, at the instant, is what the guest printed before and after.

    Nothing but kernel workers comes and goes in this guest: those that both lists have must be
    there; one that neither has must be younger than all of the list before.
    """
    lists = [{pid: name[:NAME_SIZE] for pid, name in tasks.items()} for tasks in (before, after)]
    plain, workers = zip(*(split(tasks) for tasks in (found, *lists)), strict=True)
    assert plain[0] == plain[1] == plain[2]
    assert dict(workers[1].items() & workers[2].items()).items() <= workers[0].items()
    new = dict(workers[0].items() - workers[1].items() - workers[2].items())
    assert all(pid > max(before) for pid in new), new


def split(tasks: Tasks) -> tuple[Tasks, Tasks]:
    """Tasks that stay, and kernel workers."""
    workers = {pid: name for pid, name in tasks.items() if name.startswith("kworker/")}
    return {pid: name for pid, name in tasks.items() if pid not in workers}, workers


def crash(
    core: Path,
    folder: Path,
    *commands: str,
    program: Path = CRASH,
    symbols: Path = SYMBOLS,
    options: Sequence[str] = (),
    seconds: float = DEADLINE_S,
) -> list[str]:
    """What it prints for each."""
    outputs = [folder / f"crash.{number}" for number in range(len(commands))]
    script = folder / "crash.commands"
    lines = [f"{command} > {out}\n" for command, out in zip(commands, outputs, strict=True)]
    script.write_text("".join([*lines, "quit\n"]))
    done = subprocess.run(
        [program, "-s", *options, symbols, core, "-i", script],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
        cwd=folder, env={**os.environ, "HOME": str(folder)},  # no user's .crashrc
    )  # fmt: skip
    assert done.returncode == 0, done
    return [out.read_text(errors="replace") for out in outputs]


def debugger(core: Path, symbols: Path = SYMBOLS) -> drgn.Program:
    program = drgn.Program()
    program.set_core_dump(str(core))
    program.load_debug_info([str(symbols)])
    return program


def tasks_of_crash(text: str, vcpus: int = VCPUS) -> Tasks:
    """All that `ps` shows but the idle ones, which are no processes."""
    rows = [(int(pid), name) for pid, name in _TASK.findall(text)]
    assert len(rows) == len(text.splitlines()) - 1, text
    idle = [name for pid, name in rows if pid == 0]
    assert idle == [f"[swapper/{cpu}]" for cpu in range(vcpus)]
    return {pid: name.removeprefix("[").removesuffix("]") for pid, name in rows if pid}


def tasks_of_drgn(program: drgn.Program) -> Tasks:
    return {task.pid.value_(): task.comm.string_().decode() for task in for_each_task(program)}


def stacks_of_crash(text: str) -> dict[int, list[int]]:
    """Code addresses of each task's stack, innermost first, by process id."""
    pids, bodies = _STACK.split(text)[1::3], _STACK.split(text)[3::3]
    return {
        int(pid): [int(one or other, 16) for one, other in _FRAME.findall(body)]
        for pid, body in zip(pids, bodies, strict=True)
        if pid != "0"
    }


def stack_of_drgn(program: drgn.Program, pid: int) -> list[int]:
    """The kernel's part of it."""
    found: list[int] = []
    for frame in program.stack_trace(pid):
        if frame.pc < TEXT:
            break
        if not frame.is_inline:
            found.append(frame.pc)
    return found


@dataclass
class Taken:
    """One live dump, and what the debuggers see in it."""

    guest: Guest
    core: Path
    registers: list[dict[str, int]]
    """By vCPU."""
    states: list[VcpuState]
    before: Tasks
    after: Tasks
    program: drgn.Program
    crash: dict[str, str] = field(default_factory=dict)
    """What it prints, by command."""

    def running(self) -> list[int]:
        """Process id by vCPU."""
        return [cpu_curr(self.program, cpu).pid.value_() for cpu in range(VCPUS)]


def in_kernel(registers: Any) -> bool:
    return registers["cs"] & 3 == 0 and registers["rsp"] in STACKS


def start(live: LiveDump, core: Path, settings: DumpSettings) -> None:
    """At an instant at which a vCPU runs the kernel's code."""
    for _ in range(TRIES):
        live.init(core, settings)
        live.start()
        if any(in_kernel(one) for one in live.snapshot.registers):
            return
        live.release()
    pytest.fail(f"the guest was never in its kernel, {TRIES} times")


@pytest.fixture(scope="module")
def tools() -> None:
    for path, name in ((CRASH, "crash"), (SYMBOLS, "symbols")):
        assert path.exists(), f"{path} is missing; `make -C guest/linux {name}` gets it"


@pytest.fixture(
    scope="module",
    params=[("elf", ""), ("kdump", "zlib"), ("kdump", "zstd")],
    ids=["elf", "kdump-zlib", "kdump-zstd"],
)
def taken(
    request: pytest.FixtureRequest,
    tools: None,
    guest: Guest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Taken]:
    del tools
    format, compression = request.param
    folder = tmp_path_factory.mktemp("core")
    core, live = folder / "vmcore", LiveDump(guest.machine)
    settings = DumpSettings(format=format, force=True)
    if compression:
        settings = DumpSettings(format=format, compression=compression, force=True)
    rest(guest)
    try:
        before = next_tasks(guest)
        start(live, core, settings)
        registers = [dict(one) for one in live.snapshot.registers]
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
    finally:
        live.release()
    states = list(guest.machine._captured)
    found = Taken(guest, core, registers, states, before, next_tasks(guest), debugger(core))
    commands = ("sys", "ps", "log", "bt -a", "foreach bt")
    guest.machine.monitor.execute("stop")  # crash needs a core, and the guest has said all
    try:
        found.crash.update(zip(commands, crash(core, folder, *commands), strict=True))
    finally:
        guest.machine.monitor.execute("cont")
    yield found
    core.unlink()


def test_the_tasks_are_those_of_the_guest(taken: Taken) -> None:
    in_crash, in_drgn = tasks_of_crash(taken.crash["ps"]), tasks_of_drgn(taken.program)
    assert in_crash == in_drgn
    check_tasks(in_drgn, taken.before, taken.after)
    print(f"\n{len(in_drgn)} tasks, {len(taken.before)} printed before, {len(taken.after)} after")


def test_a_page_has_the_tasks(taken: Taken, tmp_path: Path) -> None:
    """That of `livedump report`: drgn reads them through livedumpfs, also of a dump in a store."""
    store = tmp_path / "store"
    assert cli(["convert", str(taken.core), f"store:{store}"]) == 0
    (name,) = (one.stem for one in store.glob("*.caibx"))
    for number, dump in enumerate((taken.core, f"{store}#{name}")):
        out = tmp_path / f"{number}.html"
        words = ["report", str(dump), "--vmlinux", str(SYMBOLS), "-o", str(out)]
        assert cli(words) == 0
        page = parse(out.read_text())
        found = tasks_of_drgn(taken.program)
        rows = page.rows(f"{len(found)} tasks")
        assert {int(pid): name.strip("[]") for pid, _, _, name in rows} == found
        assert {name for pid, _, _, name in rows if pid == "2"} == {"[kthreadd]"}
        assert f"read by drgn {drgn.__version__}" in page.one("section", id="tasks").text


def test_gdb_reads_the_kernels_memory_by_kcore(taken: Taken, tmp_path: Path) -> None:
    """And what we read without symbols is the same."""
    with Mounted(str(taken.core), tmp_path / "mount") as mounted:
        printed = run_gdb(
            symbols_of(taken.core, SYMBOLS), f"core-file {mounted.root / 'kcore'}",
            f"source {program_file(__file__, 'tasks_in_gdb.py')}",
        )  # fmt: skip
    found = dict(re.findall(r"^(\d+) (.*)$", printed, re.MULTILINE))
    assert {int(pid): name for pid, name in found.items()} == tasks_of_drgn(taken.program), printed
    with open_dump(taken.core) as dump:
        ours = {one.pid: one.name for one in tasks(Kernel(dump.meta, dump.read_physical))}
    assert ours == {0: "swapper/0", **tasks_of_drgn(taken.program)}


def test_the_kernel_says_who_it_is(taken: Taken) -> None:
    release = taken.guest.word(r"release (\S+)")
    told = dict(re.findall(r"^ *([A-Z ]+): (.*)$", taken.crash["sys"], re.MULTILINE))
    assert (told["RELEASE"], told["CPUS"], told["MEMORY"]) == (release, str(VCPUS), "1 GB")
    assert int(told["TASKS"]) == len(tasks_of_drgn(taken.program)) + VCPUS
    name = taken.program["init_uts_ns"].name
    assert name.release.string_().decode() == release
    assert name.version.string_().decode() == told["VERSION"]


def test_the_log_is_the_same(taken: Taken) -> None:
    in_crash, in_drgn = taken.crash["log"], get_dmesg(taken.program).decode()
    assert "Linux version" in in_drgn and "Command line: console=ttyS0" in in_drgn
    lines = [[line.strip() for line in text.splitlines()] for text in (in_crash, in_drgn)]
    assert lines[0] == lines[1]


def test_the_stacks_of_all_who_wait_are_the_same(taken: Taken) -> None:
    stacks = stacks_of_crash(taken.crash["foreach bt"])
    waiting = stacks.keys() - set(taken.running())
    assert len(waiting) >= len(stacks) - VCPUS
    for pid in waiting:
        assert stacks[pid] == stack_of_drgn(taken.program, pid), pid
    (sleeper, *_) = (pid for pid, name in taken.before.items() if name == "sleep")
    names = [frame.name for frame in taken.program.stack_trace(sleeper)]
    assert {"do_nanosleep", "hrtimer_nanosleep", "do_syscall_64"} <= {*names}
    print(f"\n{len(waiting)} stacks, {sum(len(stacks[pid]) for pid in waiting)} frames")


def test_who_runs_has_the_registers_of_the_instant(taken: Taken) -> None:
    """crash does not look at those of a vCPU in user space, and shows what lies on the stack."""
    parts = _STACK.split(taken.crash["bt -a"])
    pids, cpus, texts = parts[1::3], parts[2::3], parts[3::3]
    assert [int(pid) for pid in pids] == taken.running()
    assert [int(cpu) for cpu in cpus] == list(range(VCPUS))
    for cpu, pid in enumerate(taken.running()):
        registers = taken.registers[cpu]
        task = cpu_curr(taken.program, cpu)
        frames = taken.program.stack_trace(task)
        assert frames[0].pc == registers["rip"]
        assert frames[0].register("rsp") == registers["rsp"]
        base = taken.program["__per_cpu_offset"][cpu].value_()
        state = taken.states[cpu]
        assert base in (state.segments["gs"].base, state.kernel_gs_base)
        if registers["cs"] & 3:
            assert base == state.kernel_gs_base
        if in_kernel(registers) and frames[0].name not in SWITCHING:
            shown = f"RIP: {registers['rip']:016x}  RSP: {registers['rsp']:016x}  RFLAGS: "
            assert shown in texts[cpu]
            print(f"\nvCPU {cpu}: process {pid}, in {frames[0].name}")


def first_of_drgn(core: Path) -> tuple[int, str, Tasks]:
    """A process that starts now: when it had the kernel's release, that, and the tasks."""
    words = program_command(__file__, "first_answer.py", str(core), str(SYMBOLS))
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done
    when, release, *rows = done.stdout.splitlines()
    tasks = (row.partition(" ") for row in rows)
    return int(when), release, {int(pid): name for pid, _, name in tasks}


def first_of_crash(core: Path, folder: Path) -> tuple[int, str, Tasks]:
    """The same."""
    told, tasks = crash(core, folder, "sys", "ps")
    release = re.search(r"RELEASE: (.*)", told)
    assert release is not None
    return time.monotonic_ns(), release[1], tasks_of_crash(tasks)


@pytest.mark.parametrize("tool", ["drgn", "crash"])
def test_the_first_answer_after_start(tools: None, hosted: Any, tmp_path: Path, tool: str) -> None:
    """Of a debugger that starts after START, from `snapshot/vmcore`, before anything is saved."""
    del tools
    (_, device, guest), mount = hosted, Path(hosted[1]).parent
    state, core = mount / "control" / "state", mount / "snapshot" / "vmcore"
    rest(guest)
    before = next_tasks(guest)
    control(device, "init", "--no-target", "--policy", "spill", "--spill-limit", "1G")
    state.write_text("2")
    when, release, tasks = first_of_drgn(core) if tool == "drgn" else first_of_crash(core, tmp_path)
    described = json.loads((mount / "snapshot" / "info.json").read_text())
    control(device, "release")
    check_tasks(tasks, before, next_tasks(guest))
    assert release == guest.word(r"release (\S+)")
    print(
        f"\n{tool}: {len(tasks)} tasks, first answer"
        f" {(when - described['instant']['mono_ns']) / 1e9:.2f} s after START"
    )
    guest.goes_on()


def control(device: str, *words: str) -> None:
    command = [sys.executable, "-m", "livedumpfs.cli", *words, "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done
