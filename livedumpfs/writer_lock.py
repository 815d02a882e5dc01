# SPDX-License-Identifier: GPL-2.0-or-later
"""WriterLock: threads hold it while they write, and START waits until none does."""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from livedumpfs.errors import MachineError


class WriterLock:
    """Any number of threads may hold it at once: it does not keep writers from each other, but from
    the instant of a dump. ::

        writers = WriterLock()

        def work() -> None:  # on each thread
            while True:
                data = compute()
                with writers:  # what belongs together is written together
                    state[:] = data
                    steps += 1

        LiveDump(arena, writers=writers).save("state.elf")

    While START waits, a thread that has the lock may take it once more (it is reentrant), and one
    that has not waits. So START waits for the longest `with` block that is under way, and no
    longer. Do in the block what writes the arena, and nothing that waits for another writer.

    `timeout`: seconds that START waits at the most. Keep it below the dump's `quiesce_deadline`
    (1 s): the error then names the threads that have the lock, and the others go on at once.
    """

    def __init__(self, timeout: float = 0.9) -> None:
        self.timeout = timeout
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside: dict[int, tuple[str, int]] = {}
        """By thread: its name, and how often it has the lock."""
        self._held = 0
        _ALL.add(self)

    def __enter__(self) -> Self:
        me = threading.current_thread()
        ident = threading.get_ident()
        with self._lock:
            while self._held and ident not in self._inside:
                self._changed.wait()
            self._inside[ident] = me.name, self._inside.get(ident, ("", 0))[1] + 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ident = threading.get_ident()
        with self._lock:
            name, depth = self._inside.pop(ident)
            if depth > 1:
                self._inside[ident] = name, depth - 1
            elif self._held:
                self._changed.notify_all()

    @property
    def busy(self) -> bool:
        """A thread has it now."""
        return bool(self._inside)

    def quiesce(self) -> None:
        """Return when no thread has the lock; from then on none gets it, until `resume`. For
        LiveDump(arena, writers=...). MachineError (ETIMEDOUT): a thread keeps it; then all goes on
        as if this had not been called."""
        with self._lock:
            self._held += 1
            if not self._inside:
                return  # at once: a START's stop is as long as this takes
            try:
                self._wait_until_empty()
            except BaseException:
                self._let_go()
                raise

    def _wait_until_empty(self) -> None:
        end = time.monotonic() + self.timeout
        while self._inside:
            left = end - time.monotonic()
            if left <= 0:
                raise self._too_late()
            self._changed.wait(left)

    def _too_late(self) -> MachineError:
        names = sorted(name for name, _ in self._inside.values())
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return MachineError(
            f"the writers did not come to a stop within {self.timeout:g} s: {shown}",
            errno=errno.ETIMEDOUT,
            hint="let each write in shorter blocks, or give timeout and <quiesce_deadline> more",
        )

    def resume(self) -> None:
        """Undo one quiesce."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        self._held = max(0, self._held - 1)
        self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """No thread writes in this block, as at the instant of a dump: to look at the state, or to
        change it as a whole. MachineError: as quiesce."""
        self.quiesce()
        try:
            yield
        finally:
            self.resume()

    def _forget_parent(self) -> None:
        """In a forked child: its parent's other threads, and a START, are not there."""
        ident = threading.get_ident()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = {one: has for one, has in self._inside.items() if one == ident}
        self._held = 0


_ALL: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_parents() -> None:
    for lock in _ALL:
        lock._forget_parent()


os.register_at_fork(after_in_child=_forget_parents)
