# SPDX-License-Identifier: GPL-2.0-or-later
"""Control without a mount and without a core: which caller may do what."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from livedumpfs import abi
from livedumpfs.abi import InitFlag
from livedumpfs.control import Access, Caller
from tests.fixtures.control_bench import Bench
from tests.fixtures.refusals import refused


def test_only_root_and_the_owner_may_control(bench: Bench) -> None:
    bench.control.access = Access(owner=4242)
    stranger = Caller(4243, 4243, threading.get_native_id())
    refused(errno.EACCES, lambda: bench.control.ioctl(abi.RELEASE, 0, b"", stranger, 1))
    refused(errno.EACCES, lambda: bench.control.write("control/policy", b"fail", stranger))
    for uid in (0, 4242):
        bench.control.ioctl(abi.RELEASE, 0, b"", Caller(uid, 0, 0), 1)


def test_a_group_may_control_when_the_host_says_so(bench: Bench) -> None:
    tid = threading.get_native_id()
    mine = Access(owner=4242, group=os.getegid())
    mine.check(Caller(os.geteuid(), os.getegid(), tid))
    foreign = Access(owner=4242, group=54321)
    # This task is in no such group; and a caller that claims another user's name is not believed.
    if os.geteuid() != 0:
        refused(errno.EACCES, lambda: foreign.check(Caller(os.geteuid(), 0, tid)))
    refused(errno.EACCES, lambda: mine.check(Caller(77, os.getegid(), tid)))


def test_a_caller_that_lies_about_itself_is_refused(bench: Bench, tmp_path: Path) -> None:
    """The helper compares the ids that FUSE gave with what the task is."""
    bench.caller = Caller(0, 54321, threading.get_native_id())
    path = os.fsencode(tmp_path / "out")
    refused(errno.EPERM, lambda: bench.init(InitFlag(0), path=path))


def test_a_caller_in_another_pid_namespace_can_have_no_target(bench: Bench) -> None:
    bench.caller = Caller(0, 0, 0)
    refused(errno.EPERM, lambda: bench.init(InitFlag(0), path=b"/tmp/x"))
    refused(errno.EPERM, lambda: bench.ioctl(abi.INIT, argument=4096))
    bench.init()
