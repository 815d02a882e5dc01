# SPDX-License-Identifier: GPL-2.0-or-later
"""StepBarrier: threads that work in steps, and stand between two of them for an instant."""

from __future__ import annotations

from threading import get_ident

from livedumpfs.errors import UsageError
from livedumpfs.writer_lock import WriterLock


class StepBarrier(WriterLock):
    """For loops that write all the time, as those of simulations and of training. ::

        barrier = StepBarrier()

        def work() -> None:  # on each thread
            with barrier:  # from here on START waits for this thread's steps
                for _ in range(steps):
                    step(state)
                    barrier.step()  # the state is whole: a START may take it here

        LiveDump(arena, writers=barrier).save("state.elf")

    The instant of a dump is one at which each thread that is in its `with` block stands in
    `step()`. Without a START, `step()` costs less than a microsecond. A thread joins and leaves
    when it likes; one that joins while others stand waits with them.

    Threads do not wait for each other without a START: where step N of one needs step N of the
    others, use a threading.Barrier beside it, and call `step()` in front of that.
    """

    def step(self) -> None:
        """Between two steps: stand here as long as a START wants it. UsageError: the thread is not
        in a `with` block of this barrier."""
        ident = get_ident()
        joined = self._inside.get(ident)
        if joined is None:
            raise UsageError(
                "step() of a thread that is not in the barrier",
                hint="with barrier: around its loop",
            )
        if not self._held:
            return
        with self._lock:
            del self._inside[ident]
            self._changed.notify_all()
            try:
                while self._held:
                    self._changed.wait()
            finally:
                self._inside[ident] = joined
