# SPDX-License-Identifier: GPL-2.0-or-later
"""MetricsServer: serves a host's metrics by HTTP, on one thread, as long as the host.

Any user who reaches its address may ask. So a client gets a few seconds in all, however slowly it
sends or reads; only so many are connected at once, the oldest of which makes room; and connections
are taken no faster than a fixed pace, so that a flood of them takes little of the processor and of
the GIL. The thread waits for nothing but its sockets and what `render` waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.control.metrics import CONTENT_TYPE
from livedumpfs.mount.scrape import END, LONGEST, Scraped
from livedumpfs.thread import needing_threads, start_thread

PATIENCE_S: Final = 5.0
"""Seconds that a client has for request, answer and end."""
MOST: Final = 16
"""Clients at once."""
PACE_S: Final = 0.05
"""Seconds between two clients."""
END_S: Final = 1.0
"""Seconds that the end of the host waits for the thread: render may hang with the machine."""
_RECOVERY_S: Final = 1.0
"""Seconds until the next try, when there are no descriptors left."""


class MetricsServer(Closing):
    """Any thread may call."""

    def __init__(self, listener: socket.socket, render: Callable[[], bytes]) -> None:
        """`listener`: does not block, and is closed at the end. `render`: what a scrape gets."""
        self._listener = listener
        self._scraped = Scraped(render, CONTENT_TYPE)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._clients: dict[asyncio.Task[None], socket.socket] = {}
        """The oldest first."""
        self._thread = threading.Thread(target=self._run, name="livedump-metrics", daemon=True)

    def start(self) -> None:
        """MachineError: no thread."""
        # A tenth of a second, which the first scrape would take else, perhaps during a START.
        import prometheus_client.exposition  # noqa: F401

        with needing_threads("serve metrics"):
            start_thread(self._thread)

    def close(self) -> None:
        """No more answers; the port is free. Returns within END_S."""
        if self._thread.ident is None:
            self._listener.close()
            self._loop.close()
            return
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(END_S)
        if self._thread.is_alive():
            # The thread still has the descriptor; no client can connect any more.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)

    # -------------------------------------------------------------- on the thread

    def _run(self) -> None:
        with self._listener, contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        accepting = asyncio.ensure_future(self._accept())
        await self._stop.wait()
        tasks = [accepting, *self._clients]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(_RECOVERY_S)
                continue
            if len(self._clients) >= MOST:
                next(iter(self._clients)).cancel()
            task = asyncio.ensure_future(self._converse(client))
            self._clients[task] = client
            task.add_done_callback(self._gone)
            await asyncio.sleep(PACE_S)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._clients.pop(task).close()

    async def _converse(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client's own matter; also its time, TimeoutError
            async with asyncio.timeout(PATIENCE_S):
                head = await self._head(client)
                if head is None:
                    return
                await self._loop.sock_sendall(client, self._scraped.answer(head))
                client.shutdown(socket.SHUT_WR)
                # A close with bytes unread would take the answer away from the client.
                while await self._loop.sock_recv(client, LONGEST):
                    pass

    async def _head(self, client: socket.socket) -> bytes | None:
        """None: the client has gone."""
        head = b""
        while len(head) < LONGEST:
            more = await self._loop.sock_recv(client, LONGEST - len(head))
            if not more:
                return None
            head += more
            found = head.find(END)
            if found >= 0:
                return head[: found + len(END)]
        return head
