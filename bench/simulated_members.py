# SPDX-License-Identifier: GPL-2.0-or-later
"""Members of a fleet without memory: every step of a host, and nothing behind it. So what is
measured is the fleet alone, and a step can be told to fail or to hang."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from livedumpfs.errors import HostError
from livedumpfs.fleet.landing import Landed
from livedumpfs.fleet.manifest import Taken
from livedumpfs.fleet.steps import Saved, Wanted
from livedumpfs.fleet.worker_side import EXTENSION, WorkerFleet
from livedumpfs.hosts.usable import HostHere

Trouble = Callable[[str, str], None]
"""Called with host and step before each; may raise, or wait."""


def no_trouble(host: str, step: str) -> None:
    """All goes well."""


class SimulatedHost:
    """One host. Its machine stands from hold until go, release, or the end of the time."""

    standing: ClassVar[dict[str, float]] = {}
    """Hosts of this process whose machine stands, and until which time.monotonic() at the most."""
    begun: ClassVar[set[str]] = set()
    """Those that have a dump: from INIT to RELEASE."""

    def __init__(self, device: str, trouble: Trouble, saving_s: float) -> None:
        self._device = device
        self._trouble = trouble
        self._saving_s = saving_s
        self._armed_ns = 0
        self._swept = 0.0

    def _step(self, name: str) -> None:
        self._trouble(self._device, name)

    def bases(self) -> None:
        """It keeps no track."""

    def init(self, wanted: Wanted) -> int:
        self._step("init")
        self.begun.add(self._device)
        return 4096

    def hold(self, seconds: float) -> None:
        self._step("hold")
        self.standing[self._device] = time.monotonic() + seconds

    @classmethod
    def stands(cls, device: str) -> bool:
        return cls.standing.get(device, 0.0) > time.monotonic()

    def arm(self) -> None:
        self._step("arm")
        if not self.stands(self._device):
            raise HostError("the hold was over", errno=errno.ETIMEDOUT)
        self._armed_ns = time.time_ns()

    def go(self) -> Taken:
        self._step("go")
        stood = self.stands(self._device)
        self.standing.pop(self._device, None)
        return Taken(instant_ns=self._armed_ns, pause_ns=0, stood=stood)

    def start(self, at_ns: int, late_ns: int) -> Taken:
        self._step("start")
        while (ahead := at_ns - time.time_ns()) > 0:
            time.sleep(ahead / 1e9)
        now = time.time_ns()
        if now - at_ns > late_ns:
            raise HostError("the agreed time has passed", errno=errno.ETIME)
        return Taken(instant_ns=now, instant_mono_ns=time.monotonic_ns(), pause_ns=0)

    def sweep(self) -> None:
        self._step("sweep")
        self._swept = time.monotonic()

    def saved(self) -> Saved:
        self._step("saved")
        done = time.monotonic() - self._swept >= self._saving_s
        return Saved(4096 if done else 0, 4096, 0, done, "consistent" if done else None)

    def release(self) -> None:
        self.standing.pop(self._device, None)
        self.begun.discard(self._device)

    def close(self) -> None:
        self.release()


class NoLanding:
    """Takes nothing."""

    since = b""

    def __init__(
        self, to: str, name: str, form: str, identity: str = "", bases: Any = None
    ) -> None:
        del form, identity, bases
        self.path = self.left = f"{to}/{name}"
        self.options: dict[str, object] = {}

    def handed_over(self) -> None:
        pass

    def finish(self, dump_id: bytes) -> Landed:
        return Landed(self.path, "none:", "consistent")

    def give_up(self) -> None:
        pass


class SimulatedMembers(WorkerPlugin):
    """So many members on each worker."""

    name = "simulated"

    def __init__(self, count: int, trouble: Trouble = no_trouble, saving_s: float = 0.0) -> None:
        self.count, self.trouble, self.saving_s = count, trouble, saving_s

    def setup(self, worker: Worker) -> None:
        place = worker.address.rpartition("/")[2]

        def listed(named: Sequence[str]) -> list[HostHere]:
            del named
            return [
                HostHere(f"{place}/{i}", f"vm{i:04}-{place}", "simulated", f"{place}:{i}")
                for i in range(self.count)
            ]

        worker.extensions[EXTENSION] = WorkerFleet(
            open_steps=lambda device: SimulatedHost(device, self.trouble, self.saving_s),
            list_hosts=listed,
            land=NoLanding,
        )
