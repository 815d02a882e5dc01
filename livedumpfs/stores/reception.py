# SPDX-License-Identifier: GPL-2.0-or-later
"""Reception: a thread that receives one dump into a store, and the path for the host's end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.pipe_thread import PipeThread
from livedumpfs.stores.base_image import find_base
from livedumpfs.stores.receive import LOCK_WAIT_S, Published, receive_locked
from livedumpfs.stores.store import Store

_PATIENCE_S: Final = 5.0
"""For a store that hangs."""


class Reception(Closing):
    """For a process that asks a host for a dump:

        with Reception(store) as reception:
            client.init(reception.path, InitOptions(format=Format.ELF, release_on_close=True))
            reception.handed_over()
            ...                                  # START, SWEEP, FINISH, RELEASE
            published = reception.finish()

    The machine must be in another process: a store may wait for the interpreter's lock while
    threads of the machine wait for slots. When this process ends, or the store fails, the host's
    pipe is broken: it gives the dump up, and nothing is published.
    """

    def __init__(self, store: Store, *, bases: Sequence[bytes] = (), identity: str = "") -> None:
        """`store` stays the caller's. `bases`: see find_base; `identity`: see receive_locked.
        TargetError EBUSY: gc works on the store; MachineError EAGAIN: no thread, OSError: no
        descriptor."""
        self._store, self._identity, self._bases = store, identity, bases
        self._published: Published | None = None
        self._begun = threading.Event()
        self._held = contextlib.ExitStack()
        self._held.enter_context(store.lock(wait_s=LOCK_WAIT_S))
        self.error: Exception | None = None
        """Why the dump is not in the store, known before the host's pipe is broken; None: it is
        there, or on its way."""
        try:
            self.base = find_base(store, bases)
            """For INIT's `since`; None: the store has none of them."""
            self._pipe = PipeThread(self._take, "receive the dump", "livedump-receive")
        except BaseException:
            self._held.close()
            raise
        self.path = self._pipe.path
        """The target for the host."""

    @property
    def all_read(self) -> str:
        """Why there is no base, in one sentence, so that all of the memory is read; "": there is
        one."""
        if self.base:
            return ""
        if not self._bases:
            return "there is no earlier dump since which the machine has kept track of changes"
        return (
            f"{self._store.url} has none of the dumps since which the machine has kept track, or "
            "lacks chunks"
        )

    def _take(self, pipe: int) -> None:
        try:
            self._published = receive_locked(
                pipe,
                self._store,
                base=self.base,
                identity=self._identity,
                begun=lambda _: self._begun.set(),
            )
        except Exception as error:
            self.error = error
        finally:
            self._held.close()
            self._begun.set()

    def handed_over(self) -> None:
        """After INIT: the host has opened the path. Raises what receive() raises if the store
        cannot take the dump: nothing of the machine was touched yet."""
        self.let_go()
        self._begun.wait()
        if self.error:
            raise self.error

    def let_go(self) -> None:
        """See PipeThread."""
        self._pipe.let_go()

    def finish(self, timeout: float | None = None) -> Published:
        """Return when the dump is published, or raise why it is not: as receive(). After RELEASE,
        or once the host has sealed the dump. TimeoutError: after `timeout` seconds."""
        self.let_go()
        self._pipe.join(timeout)
        if self.error:
            raise self.error
        if self._published is None:
            raise TimeoutError(f"the store {self._store.url} has not taken the dump yet")
        return self._published

    def close(self) -> None:
        """Give the dump up, if it is not published, and let the store's lock go."""
        self.let_go()
        self._pipe.join(_PATIENCE_S)
