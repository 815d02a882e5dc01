# SPDX-License-Identifier: GPL-2.0-or-later
"""An exception of a signal's handler in ARM: the machine runs, and no dump is left that is armed
without a state that says so."""

from __future__ import annotations

import time

import pytest

from livedumpfs.core.capi import lib
from livedumpfs.dump import DumpSettings, DumpState
from livedumpfs.dump.held import Holding
from tests.integration.test_hold import DEADLINE_S, LONG_S, MACHINES, runs

pytestmark = pytest.mark.usefixtures("no_vcpu_is_left")


def interrupted(monkeypatch: pytest.MonkeyPatch, *, late: bool) -> None:
    """The next wait of ARM is ended by Ctrl-C: before the holder has come to arming, perhaps, or
    (`late`) certainly after it."""
    real = Holding._await

    def wait(self: Holding, stage: int) -> int:
        if stage != lib.LDFS_HOLD_ARMED:
            return real(self, stage)
        if late:
            real(self, stage)
        raise KeyboardInterrupt

    monkeypatch.setattr(Holding, "_await", wait)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", MACHINES)
def test_ctrl_c_in_arm(monkeypatch: pytest.MonkeyPatch, kind: str, *, late: bool) -> None:
    with MACHINES[kind]() as (dump, look):
        dump.init(None)
        dump.hold(LONG_S)
        with monkeypatch.context() as patched:
            interrupted(patched, late=late)
            with pytest.raises(KeyboardInterrupt):
                dump.arm()
        assert not dump.is_held and not dump.was_let_go
        runs(look)
        run = dump._run
        assert (run is None) is (dump.state is DumpState.UNINIT)
        if late:
            assert dump.state is DumpState.UNINIT
        if run:  # it was let go before it was armed: as if ARM had not been asked for
            assert run.core and run.core.startable and dump.state is DumpState.INIT
            dump.start()
            dump.release()
        dump.init(None, DumpSettings())
        dump.start()
        runs(look)


def test_what_arm_has_left_when_the_machine_is_let_go_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """ARM does not wait for ever for the machine. The holder then ends a dump that was armed."""
    with MACHINES["threads"]() as (dump, look):
        dump.init(None)
        dump.hold(LONG_S)
        with monkeypatch.context() as patched:
            interrupted(patched, late=True)
            # As if the time to wait were over: it is neither let go nor looked at.
            patched.setattr(Holding, "release", lambda _: None)
            patched.setattr(Holding, "wait_until_it_runs", lambda _: None)
            patched.setattr(dump, "_retire_failed", lambda *_, **__: None)
            with pytest.raises(KeyboardInterrupt):
                dump.arm()
        assert dump.state is DumpState.INIT and dump._run and dump._run.holding
        dump._run.holding.release()
        end = time.monotonic() + DEADLINE_S
        while dump.state is not DumpState.UNINIT:
            assert time.monotonic() < end, dump.state
            time.sleep(0.01)
        assert "a START that failed" in (dump.released or "")
        runs(look)
