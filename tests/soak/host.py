# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that has the machine and dumps it as the soak tells it; it may be killed at any time.

    host.py SEED LARGEST REFERENCE_FD LIBRARY

On standard input `dump INDEX PATH`, `go` or `status`, one a line; on standard output a JSON object
a line: {"step": ...} for each step, then {"done": ...}. After `done` the machine is held until
`go`, so that the process that compares has the cores.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from choices import DUMPS_OF_MACHINE, Chooser, DumpChoice
from machine import ArenaMachine, GuestMachine, Machine
from oracle import Reference
from reader import Reader

from livedumpfs.core.capi import ffi, lib
from livedumpfs.dump import LiveDump
from livedumpfs.targets import Target, adopt_target

DEADLINE_S = 3000.0
"""Longer than that of the soak, which tells a hang from outside."""
_STDOUT = threading.Lock()


def tell(**what: object) -> None:
    """One line."""
    with _STDOUT:
        print(json.dumps(what), flush=True)


class Repeater:
    """A thread that does something again and again until that is False, or it is to end."""

    def __init__(self, what: Callable[[], bool]) -> None:
        self.error: str | None = None
        self._what = what
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._end.is_set() and self._what():
                pass
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def join(self) -> None:
        self._end.set()
        self._thread.join(DEADLINE_S)


@dataclass
class Run:
    """One dump: what is at work on it, and what was found."""

    choice: DumpChoice
    machine: Machine
    reference: Reference
    readers: list[Reader] = field(default_factory=list)
    repeaters: list[Repeater] = field(default_factory=list)
    lost: list[list[int]] = field(default_factory=list)
    verdict: str | None = None

    def steps(self, path: str) -> None:
        """Up to FINISH, or to the moment of RELEASE."""
        choice, live = self.choice, self.machine.live
        tell(step="begin")
        if choice.discards:
            chosen = random.Random(choice.index)
            self.repeaters.append(Repeater(lambda: self._punch(chosen)))
        live.init(self._target(path), choice.settings, reference=self.reference.fd)
        if self._reached("init"):
            return
        live.start()
        for _ in range(choice.readers):
            self.repeaters.append(Repeater(self._new_reader().step))
        if self._reached("start"):
            return
        time.sleep(choice.before_sweep)
        live.sweep()
        if self._reached("sweep"):
            return
        live.finish(DEADLINE_S, check=False)
        self._reached("finish")
        if choice.end == "kill":
            time.sleep(DEADLINE_S)
        self.join()
        if choice.target == "none":
            self._new_reader().read_all(live.lost_pages)
        self.lost, self.verdict = live.lost_pages(), live.so_far

    def _reached(self, step: str) -> bool:
        """True: the moment of RELEASE lies behind this step, and has come."""
        tell(step=step)
        if self.choice.end != "release" or self.choice.step != step:
            return False
        time.sleep(self.choice.after)
        return True

    def _new_reader(self) -> Reader:
        seed = f"{self.choice.index}:{len(self.readers)}"
        self.readers.append(Reader(self.machine.live.snapshot, self.reference, seed))
        return self.readers[-1]

    def _punch(self, chosen: random.Random) -> bool:
        assert isinstance(self.machine, ArenaMachine)
        self.machine.punch(chosen)
        time.sleep(0.0003)
        return True

    def _target(self, path: str) -> str | Target | None:
        if self.choice.target == "none":
            return None
        if self.choice.target == "slow":
            created = not os.path.exists(path)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DSYNC | os.O_CLOEXEC, 0o600)
            return adopt_target(fd, path, force=True, created=created)
        return path

    def join(self) -> None:
        for repeater in self.repeaters:
            repeater.join()

    def found(self) -> dict[str, Any]:
        """After RELEASE; JSON types."""
        live = self.machine.live
        return {
            "verdict": self.verdict,
            "lost": self.lost,
            "failure": live.failure,
            "counters": asdict(live.counters()),
            "rounds": self.machine.rounds(),
            "pages": sum(r.pages for r in self.readers),
            "different": [page for r in self.readers for page in r.different],
            "refused": [pages for r in self.readers for pages in r.refused],
            "errors": [r.error for r in self.repeaters if r.error],
        }


class Host:
    """Does dump after dump."""

    def __init__(self, chooser: Chooser, reference: int, library: Path) -> None:
        self.chooser, self.reference, self.library = chooser, reference, library
        self.commands: queue.Queue[str] = queue.Queue()
        self.machine: Machine | None = None
        self.number = -1
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            if line == "status\n":
                self._tell_status()
            else:
                self.commands.put(line)
        os._exit(3)  # the soak has gone

    def _tell_status(self) -> None:
        """For the report of a hang."""
        faulthandler.dump_traceback(all_threads=True)
        if self.machine is None:
            tell(status="there is no machine yet")
            return
        live = self.machine.live
        told = {"counters": asdict(live.counters()), "states": states_of(live)}
        told |= {"state": live.state.value, "failure": live.failure}
        tell(status={**told, "rounds": self.machine.rounds()})

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            _, index, path = self.commands.get().rstrip("\n").split(" ", 2)
            choice = self.chooser.choose(int(index))
            self._dump(choice, self._machine_of(choice), path)

    def _machine_of(self, choice: DumpChoice) -> Machine:
        number = choice.index // DUMPS_OF_MACHINE
        if self.machine is None or number != self.number:
            if self.machine:
                self.machine.close()
            if choice.machine.kind == "ledger":
                self.machine = GuestMachine(choice.machine)
            else:
                self.machine = ArenaMachine(choice.machine, self.library)
            self.number = number
        return self.machine

    def _dump(self, choice: DumpChoice, machine: Machine, path: str) -> None:
        with Reference(choice.machine.size, self.reference) as reference:
            run = Run(choice, machine, reference)
            try:
                run.steps(path)
            finally:
                machine.live.release()
                run.join()
            machine.quiesce()
            tell(done=run.found())
        assert self.commands.get() == "go\n"
        machine.resume()


def states_of(live: LiveDump) -> dict[str, int]:
    """How many granules are in each state of the core, of a dump that is under way."""
    run = live._run
    if run is None or run.core is None:
        return {}
    states = np.zeros(run.core.counters().granules, dtype=np.uint8)
    with run.core._using() as dump:  # type: ignore[attr-defined]
        if dump is not None:
            lib.ldfs_dump_states(dump, 0, len(states), ffi.from_buffer("uint8_t[]", states))
    names = {getattr(lib, name): name for name in dir(lib) if name.startswith("LDFS_G_")}
    return {names[state]: int(n) for state, n in enumerate(np.bincount(states)) if n}


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What ends the host is told first."""
    try:
        yield
    except BaseException as error:
        tell(failed=f"{type(error).__name__}: {error}")
        raise


def main() -> None:
    """See the top."""
    seed, largest, reference, library = sys.argv[1:]
    with explained():
        Host(Chooser(int(seed), int(largest)), int(reference), Path(library)).run()


if __name__ == "__main__":
    main()
