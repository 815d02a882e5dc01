# SPDX-License-Identifier: GPL-2.0-or-later
"""The shim lowers the threads that a host has raised and cannot lower."""

from __future__ import annotations

import errno
import os
import socket
import time

import pytest

from livedumpfs.core.capi import lib
from tests.integration import test_remote_core
from tests.integration.test_remote_core import DEADLINE_S, Elsewhere

elsewhere = test_remote_core.machine


@pytest.mark.parametrize("end", ["late", "next words", "our end"])
def test_threads_that_we_have_raised_are_lowered(elsewhere: Elsewhere, end: str) -> None:
    """Those alone that the last words name, and that have the policy that we give."""
    assert elsewhere.shim is not None
    raised = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    found = sorted(int(name) for name in os.listdir(f"/proc/{elsewhere.process}/task"))
    ours, chosen, unnamed = found[:3]
    mine, theirs = socket.socketpair()
    with mine, theirs:
        threads, words = [ours, chosen, os.getpid()], b"cont\n"
        elsewhere.shim.last_words(words, theirs.fileno(), 0.2 if end == "late" else 0, threads)
        try:
            for one in (ours, chosen, unnamed):
                policy = os.SCHED_RR if one == chosen else raised
                os.sched_setscheduler(one, policy, os.sched_param(1))
        except PermissionError:
            pytest.skip("no right to SCHED_FIFO here")
        if end == "next words":
            elsewhere.shim.last_words(b"", -1)
        elif end == "our end":
            elsewhere.shim.close()
        limit = time.monotonic() + DEADLINE_S
        while os.sched_getscheduler(ours) != os.SCHED_OTHER:
            assert time.monotonic() < limit, "it still runs before all others"
            time.sleep(0.01)
    if end != "our end":  # else these threads of the shim have ended
        assert os.sched_getscheduler(chosen) == os.SCHED_RR
        assert os.sched_getscheduler(unnamed) == raised


@pytest.mark.parametrize("count", [2, 4097, 1 << 62, (1 << 64) - 1])
def test_more_threads_than_there_are_in_the_message(elsewhere: Elsewhere, count: int) -> None:
    assert elsewhere.shim is not None
    answer = elsewhere.shim.call(lib.LDFS_SHIM_LAST_WORDS, 0, count, b"\x01\x00\x00\x00")
    assert answer.code == -errno.EINVAL
