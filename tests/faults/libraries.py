# SPDX-License-Identifier: GPL-2.0-or-later
"""What libraries do with SIGSEGV before and during a dump: how often our handler had to be put
back, by how many more entries of it, and what became of the dump. `libraries.py NAME` prints one
JSON line.

The names in OUTSIDE need what the tests do without: a JVM with jpype1, libsigsegv, a system's
OpenBLAS, torch. The table in docs/concurrency.md has them too."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from aftermath import wait_for

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.core.capi import lib

SIZE = 1 << 20
dump: LiveDump | None = None
"""While it is armed."""
entries: set[int] = set()
"""Of our handler, that were seen on top."""


def on_top() -> int:
    """The address of the SIGSEGV handler."""
    action = ctypes.create_string_buffer(256)
    assert ctypes.CDLL(None).sigaction(signal.SIGSEGV, None, action) == 0
    return int.from_bytes(action[:8], sys.byteorder)


def look() -> None:
    """Until the guard has seen what is installed now: it leaves nothing on top of ours."""
    if dump:
        counters = dump.counters
        wait_for(lambda: lib.ldfs_fault_verify(signal.SIGSEGV) == 0 or counters().lost, counters)
        entries.add(on_top())


def nothing() -> None:
    pass


def faulthandler_on() -> None:
    faulthandler.enable()
    look()


def faulthandler_off() -> None:
    faulthandler.disable()
    look()


def faulthandler_off_and_on() -> None:
    """Within one look of the guard."""
    faulthandler.disable()
    faulthandler_on()


def faulthandler_many_times() -> None:
    for _ in range(5):
        faulthandler_on()
        faulthandler_off()


def pytest_session() -> None:
    """pytest's own plugin enables faulthandler, and at the end puts back what was there."""
    import pytest

    class Looks:
        @staticmethod
        def pytest_sessionstart() -> None:
            look()

    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as empty:
        options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={empty}"]
        code = pytest.main([*options, empty], [Looks()])
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    look()


def unicorn() -> None:
    from unicorn import UC_ARCH_X86, UC_MODE_64, Uc

    machine = Uc(UC_ARCH_X86, UC_MODE_64)
    machine.mem_map(0x1000, 0x1000)
    machine.mem_write(0x1000, b"\x48\xff\xc0" * 8)  # inc rax
    machine.emu_start(0x1000, 0x1018)
    look()


def products() -> None:
    """With the OpenBLAS that numpy brings, and its threads."""
    a = np.random.default_rng(1).random((300, 300))
    np.linalg.inv(a @ a)
    look()


def chains() -> None:
    """As a garbage collector that asks the handler before it for what is not its own."""
    library = ctypes.CDLL(os.environ["HANDLERS"])
    library.steal(0)
    look()
    assert library.fault_of_its_own(0) > 0


def saves_and_restores() -> None:
    """As a virtual machine that is started and ended again and again."""
    for _ in range(5):
        chains()
        ctypes.CDLL(os.environ["HANDLERS"]).withdraw(0)
        look()


def one_fault() -> None:
    """With SA_RESETHAND."""
    ctypes.CDLL(os.environ["HANDLERS"]).steal_once(1)
    look()


def openblas() -> None:
    library = ctypes.CDLL(os.environ["OPENBLAS"])
    library.openblas_set_num_threads(2)
    a, c = np.ones((300, 300)), np.zeros((300, 300))
    size, one = ctypes.c_int(300), ctypes.c_double(1)
    of = [ctypes.c_void_p(x.ctypes.data) for x in (a, a, c)]
    library.cblas_dgemm(
        101, 111, 111, size, size, size, one, of[0], size, of[1], size, one, of[2], size
    )
    assert c[0, 0] == 300
    look()


def torch() -> None:
    import torch

    a = torch.rand(300, 300, requires_grad=True)
    (a @ a).sum().backward()
    look()


def jvm() -> None:
    """HotSpot takes SIGSEGV for null checks and safepoints, and passes on to what it found."""
    import jpype

    if not jpype.isJVMStarted():
        jpype.startJVM()
    java: Any = jpype.java
    for i in range(20_000):
        java.util.ArrayList([i]).hashCode()
    java.lang.System.gc()
    look()


def libsigsegv_on() -> None:
    library = ctypes.CDLL(os.environ["LIBSIGSEGV"])
    handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(lambda *_: 0)
    kept.append(handler)
    assert library.sigsegv_install_handler(handler) == 0
    look()


def libsigsegv_on_and_off() -> None:
    libsigsegv_on()
    ctypes.CDLL(os.environ["LIBSIGSEGV"]).sigsegv_deinstall_handler()
    look()


kept: list[Any] = []
Step = Callable[[], None]
CASES: dict[str, tuple[Step, Step]] = {  # before the arena is made, and during the dump
    "nothing": (nothing, nothing),
    "faulthandler before": (faulthandler_on, nothing),
    "faulthandler before, off and on": (faulthandler_on, faulthandler_off_and_on),
    "faulthandler": (nothing, faulthandler_on),
    "faulthandler many times": (nothing, faulthandler_many_times),
    "pytest": (nothing, pytest_session),
    "Unicorn before": (unicorn, unicorn),
    "Unicorn": (nothing, unicorn),
    "numpy before": (products, products),
    "numpy": (nothing, products),
    "chains": (nothing, chains),
    "saves and restores": (nothing, saves_and_restores),
    "SA_RESETHAND": (nothing, one_fault),
    "faulthandler, chains": (faulthandler_on, chains),
}
OUTSIDE: dict[str, tuple[Step, Step]] = {
    "OpenBLAS": (nothing, openblas),
    "torch before": (torch, torch),
    "torch": (nothing, torch),
    "JVM before": (jvm, jvm),
    "JVM": (nothing, jvm),
    "libsigsegv before": (libsigsegv_on, nothing),
    "libsigsegv": (nothing, libsigsegv_on),
    "libsigsegv on and off": (nothing, libsigsegv_on_and_off),
}


def measure(before: Step, during: Step) -> dict[str, object]:
    """The machine of the dump is stored to after all of it, as it is during it."""
    global dump
    before()
    with Arena(SIZE) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        live.init(None, DumpSettings(backend="sigsegv"))
        live.start()
        dump = live
        look()
        arena.live[: SIZE // 2] = 2
        during()
        arena.live[:] = 3
        found = {"retaken": live.counters().retaken, "more": len(entries) - 1, "says": live.so_far}
        if live.so_far == "consistent":
            assert live.read(0, SIZE).count(1) == SIZE
        live.release()
        dump = None
    return found


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(measure(*(CASES | OUTSIDE)[sys.argv[1]])))
    sys.stdout.flush()
    os._exit(0)  # a JVM waits for its threads
