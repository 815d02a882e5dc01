# SPDX-License-Identifier: GPL-2.0-or-later
"""What crash and gdb see in a dump of Linux in process, with the kernel's debug symbols:
`make test-foreign`, which fetches them.

LIVEDUMP_FOREIGN_DUMPS makes it run.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from drgn.helpers.linux import get_dmesg

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump
from livedumpfs.linux import Kernel, log_records, tasks
from tests.fixtures.mounted_dumps import Mounted
from tests.linux.conftest import LinuxGuest
from tests.qemu.gdb_scripts import kernel_scripts, tasks_of_gdb
from tests.qemu.test_debuggers import crash, debugger, tasks_of_crash, tasks_of_drgn

BUILD = Path(__file__).resolve().parents[2] / "guest" / "foreign" / "build" / "riscv64"
CRASH, SYMBOLS = BUILD / "crash", BUILD / "vmlinux"
DEADLINE_S = 600.0
FORMATS = ("elf", "kdump")
COMMANDS = ("sys", "ps", "log", "bt 1", "bt 2", "bt -a")

pytestmark = [
    pytest.mark.together,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("LIVEDUMP_FOREIGN_DUMPS"), reason="`make test-foreign` has symbols"
    ),
]


@dataclass(frozen=True)
class Taken:
    """A dump, and what it says without debug symbols."""

    core: Path
    names: dict[int, str]
    """Of tasks, by process id, but the idle one."""
    log: list[str]
    release: str
    registers: list[dict[str, int]]


@pytest.fixture(scope="module", params=FORMATS)
def taken(
    request: pytest.FixtureRequest,
    linux: Callable[..., LinuxGuest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Taken:
    guest = linux("256MiB", "load=stores,forks,files,tasks")
    guest.wait_for(r"load: forks [1-9]\d* right")
    core = tmp_path_factory.mktemp("core") / request.param
    LiveDump(guest.machine).save(core, DumpSettings(format=request.param))
    guest.machine.close()  # the debuggers need a core
    with open_dump(core) as dump:
        kernel = Kernel(dump.meta, dump.read_physical)
        return Taken(
            core,
            {one.pid: one.name for one in tasks(kernel) if one.pid},
            [one.text for one in log_records(kernel)],
            kernel.description.release,
            [dict(one) for one in dump.registers],
        )


def test_crash_lists_tasks_log_and_stacks(taken: Taken, tmp_path: Path) -> None:
    shown = crash(
        taken.core, tmp_path, *COMMANDS, program=CRASH, symbols=SYMBOLS, seconds=DEADLINE_S
    )
    told = dict(zip(COMMANDS, shown, strict=True))
    assert tasks_of_crash(told["ps"], vcpus=1) == taken.names
    assert taken.release in told["sys"] and "CPUS: 1" in told["sys"]
    wanted = [line for text in taken.log for line in text.splitlines()]
    assert [line for line in wanted if line not in told["log"]] == [] and len(wanted) > 100
    assert "kernel_wait4" in told["bt 1"] and "kthreadd" in told["bt 2"]
    assert told["bt -a"].count("PID: ") == 1
    print(f"\n{taken.core.name}: {len(taken.names)} tasks, {len(wanted)} lines of log in crash")


def test_gdb_names_what_the_hart_runs(taken: Taken) -> None:
    """By the registers alone, in the dump's own file."""
    if taken.core.name != "elf":
        pytest.skip("gdb reads an ELF core")
    (registers,) = taken.registers
    words = ("-ex", "print/x $pc", "-ex", "print/x $tp", "-ex", "info symbol $pc")
    done = subprocess.run(
        ["gdb-multiarch", "-nx", "-batch", SYMBOLS, taken.core, *words],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    values = [int(one, 16) for one in re.findall(r"^\$\d+ = (0x\w+)$", done.stdout, re.MULTILINE)]
    assert values == [registers["pc"], registers["tp"]], done
    in_kernel = registers["pc"] >> 63 == 1
    assert (" in section .text" in done.stdout) == in_kernel, done.stdout


@pytest.fixture
def kcore(taken: Taken, tmp_path: Path) -> Iterator[Path]:
    """In the mount of the dump."""
    with Mounted(str(taken.core), tmp_path / "mount") as mounted:
        yield mounted.root / "kcore"


def test_the_kernels_gdb_scripts_list_tasks_and_log(taken: Taken, kcore: Path) -> None:
    told = kernel_scripts(taken.core, kcore, BUILD, "lx-ps", "lx-dmesg", "lx-mounts", "bt")
    assert tasks_of_gdb(told["lx-ps"]) == taken.names
    wanted = [line for text in taken.log for line in text.splitlines()]
    assert [line for line in wanted if line not in told["lx-dmesg"]] == [] and len(wanted) > 100
    assert "/dev/vda /disk ext4 rw" in told["lx-mounts"]
    (registers,) = taken.registers
    frames = re.findall(r"^#\d+ ", told["bt"], re.MULTILINE)
    assert len(frames) > (registers["pc"] >> 63), told["bt"]
    print(f"\n{taken.core.name}: {len(taken.names)} tasks, {len(wanted)} lines of log in gdb")


def test_drgn_reads_riscv_by_kcore(taken: Taken, kcore: Path) -> None:
    """It does not know that processor's page tables."""
    program = debugger(kcore, SYMBOLS)
    assert tasks_of_drgn(program) == taken.names
    log = get_dmesg(program).decode()
    assert [one for text in taken.log for one in text.splitlines() if one not in log] == []
