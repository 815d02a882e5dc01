# SPDX-License-Identifier: GPL-2.0-or-later
"""HostSamples: asks a host every moment, on a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from livedumpfs.cli.outcome import sentence
from livedumpfs.cli.watch_figures import Sample
from livedumpfs.cli.watch_keys import TypedStep, Wish
from livedumpfs.errors import LivedumpError
from livedumpfs.thread import needing_threads, start_thread

if TYPE_CHECKING:
    from livedumpfs.client import Client


class HostSamples:
    """A host may hang, and the terminal must answer its keys all the same."""

    def __init__(self, client: Client, every: float, clock: Callable[[], float]) -> None:
        """Ask `client`, which belongs to the thread from now on, every so many seconds."""
        self._client, self._every, self._clock = client, every, clock
        self._samples: queue.SimpleQueue[Sample] = queue.SimpleQueue()
        self._steps: queue.SimpleQueue[TypedStep] = queue.SimpleQueue()
        self._awake = threading.Event()
        self._asked = clock()
        self.problem: BaseException | None = None
        """Why no more samples come."""
        self.notice = ""
        """What became of the last step; taken away by the reader."""

    def start(self) -> None:
        """MachineError: no thread."""
        thread = threading.Thread(target=self._work, name="livedump-watch", daemon=True)
        with needing_threads("watch the host"):
            start_thread(thread)

    def do(self, step: TypedStep) -> None:
        """Take a step soon."""
        self._steps.put(step)
        self._awake.set()

    def take(self) -> list[Sample]:
        """The samples that have come since the last call."""
        found = []
        while not self._samples.empty():
            found.append(self._samples.get())
        return found

    @property
    def silent_s(self) -> float:
        """Seconds since the host was asked something that it has not answered; 0: it has."""
        asked = self._asked
        return max(0.0, self._clock() - asked) if asked else 0.0

    def _work(self) -> None:
        try:
            while True:
                self._asked = self._clock()
                while not self._steps.empty():
                    self.notice = self._done(self._steps.get())
                self._samples.put(self._sample())
                self._asked = 0.0
                self._awake.wait(self._every)
                self._awake.clear()
        except BaseException as error:
            self.problem = error

    def _sample(self) -> Sample:
        stats = self._client.stats()
        return Sample(self._clock(), stats, self._client.pages())

    def _done(self, step: TypedStep) -> str:
        """A refusal is no end: the host says why."""
        dump_id = bytes.fromhex(step.dump_id)
        try:
            if step.wish is Wish.SWEEP:
                self._client.sweep_as(dump_id)
                return "sweep begun"
            self._client.release_as(dump_id)
        except LivedumpError as error:
            return sentence(error)
        return "released; the machine runs at full speed"
