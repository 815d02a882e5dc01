# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a real host, by its ioctls."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from livedumpfs.abi import State, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.errors import HostError, StateError
from livedumpfs.fleet.manifest import Taken, Word
from livedumpfs.fleet.steps import Saved, Steps, Wanted

if TYPE_CHECKING:
    from livedumpfs.answers import Instant

_AGAIN_S = 0.05
_PATIENCE_S = 10.0
"""For the step of another client that is under way."""
_WORDS: dict[str, Word] = {word: word for word in ("consistent", "torn", "incomplete")}


class HostSteps:
    """An open host. See Steps."""

    def __init__(self, device: str) -> None:
        """HostError: it cannot be used."""
        self._client = Client(device)
        self._id = b""
        self._stood_ns = 0
        self._asked_arm_ns = 0
        self._asked_go_ns = 0
        self._armed: Instant | None = None

    def bases(self) -> Sequence[bytes] | None:
        """See Steps."""
        return self._client.tracked_bases()

    def init(self, wanted: Wanted) -> int:
        """INIT under that dump id."""
        options = InitOptions(release_on_close=True, **wanted.options)
        self._id = wanted.dump_id
        self._client.init_as(wanted.dump_id, wanted.target, options, since=wanted.since)
        return self._client.status().bytes_total

    def hold(self, seconds: float) -> None:
        """HOLD."""
        self._stood_ns = self._client.hold(self._id, seconds).stood_mono_ns

    def arm(self) -> None:
        """ARM."""
        self._asked_arm_ns = self._asked_arm_ns or time.monotonic_ns()
        self._armed = self._client.arm(self._id)

    def go(self) -> Taken:
        """GO. HostError ETIMEDOUT: the deadline let it go, and nothing was armed before."""
        self._asked_go_ns = self._asked_go_ns or time.monotonic_ns()
        try:
            found = self._client.go(self._id)
            return _taken(found, stood=self._stood(found))
        except HostError as error:
            if error.errno != errno.ETIMEDOUT or self._armed is None:
                raise
            return _taken(self._armed, stood=False)

    def start(self, at_ns: int, late_ns: int) -> Taken:
        """START at that time."""
        return _taken(self._client.start_as(self._id, at_ns, late_ns), stood=True)

    def _stood(self, found: Instant) -> bool:
        """Whether the machine stood from our HOLD on until we asked for GO. The host answers a step
        that was taken already, by whatever client: that may have been before all others stood."""
        return (
            found.stood_mono_ns == self._stood_ns
            and found.instant_mono_ns >= self._asked_arm_ns
            and found.ran_mono_ns >= self._asked_go_ns
        )

    def sweep(self) -> None:
        """SWEEP; it goes on in the host. One that another client began is as good."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._client.sweep_as(self._id)
                return
            except StateError as error:
                if error.errno != errno.EBUSY or time.monotonic() > until:
                    raise
            time.sleep(_AGAIN_S)

    def saved(self) -> Saved:
        """From STATUS. HostError: ECANCELED, it was released before it was whole; ESTALE, another
        dump is there."""
        status = self._client.status_as(self._id)
        # A whole dump that another client has released is whole still.
        whole = status.finished or (
            status.state is State.UNINIT
            and status.verdict in (Verdict.CONSISTENT, Verdict.TORN)
            and status.bytes_done + status.lost == status.bytes_total
        )
        reason, word, increment = None, None, None
        if whole:
            increment = self._said("increment") or {}
            reason = self._said("reason") if status.broken else None
            word = _WORDS.get(status.verdict.name.lower(), "incomplete")
        elif status.state not in (State.START, State.SWEEP):
            why = self._said("released") or "its dump was released"
            raise HostError(why, errno=errno.ECANCELED)
        all_read = increment.get("reason") if increment else None
        done, total = status.bytes_done, status.bytes_total
        return Saved(done, total, status.lost, whole, word, reason, all_read)

    def _said(self, key: str) -> Any:
        """What stats.json says of our dump; None: it is another's by now."""
        stats = self._client.stats()
        return stats.get(key) if stats["id"] == self._id.hex() else None

    def release(self) -> None:
        """RELEASE of our dump: that of another program stays. While INIT is under way it does
        nothing; it is done again after the step."""
        if not self._id:
            return
        try:
            self._client.release_as(self._id)
        except StateError as error:
            if error.errno not in (errno.ESTALE, errno.EINPROGRESS):
                raise

    def close(self) -> None:
        """Close."""
        self._client.close()


def _taken(found: Instant, *, stood: bool) -> Taken:
    return Taken(
        instant_ns=found.instant_wall_ns,
        instant_mono_ns=found.instant_mono_ns,
        pause_ns=found.pause_ns,
        stood_from_ns=found.stood_wall_ns,
        stood_until_ns=found.ran_wall_ns,
        stood=stood,
    )


def open_host(device: str) -> Steps:
    """See steps.Open."""
    return HostSteps(device)
