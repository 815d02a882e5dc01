# SPDX-License-Identifier: GPL-2.0-or-later
"""The shim in a process that gives memory back, and where it cannot tell which memory that is: a
discard that is not saved first would be missing in the dump, so it is refused."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from failing_calls import build_failing_calls

from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu.process import shim_path
from livedumpfs.machines.shim import Shim
from tests.fixtures.program_files import program_command

SIZE = 1 << 20
WORD = "the-machine"
DEADLINE_S = 300.0


class Machine:
    """That program, with the shim in it, and its memory's descriptor."""

    def __init__(self, folder: Path, failing_calls: Path) -> None:
        where = str(folder / "shim")
        python = os.path.realpath(sys.executable)
        environment = {
            "LD_PRELOAD": f"{shim_path()}:{failing_calls}",
            "LIVEDUMP_SHIM_SOCKET": where,
            "LIVEDUMP_SHIM_WORD": WORD,
            "LIVEDUMP_SHIM_PROGRAM": os.path.basename(python),
        }
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(where)
            listener.listen(1)
            listener.settimeout(DEADLINE_S)
            self._child = subprocess.Popen(
                [*program_command(__file__, "guest_memory.py", WORD, str(SIZE), python=python)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | environment,
            )
            try:
                connection, _ = listener.accept()
                self.address, fd = map(int, self._answer().split())
                self.shim = Shim(connection)
                self.memfd = os.open(f"/proc/{self._child.pid}/fd/{fd}", os.O_RDWR)
            except BaseException:
                self._end()
                raise

    def _answer(self) -> str:
        assert self._child.stdout
        return self._child.stdout.readline().strip()

    def say(self, command: str) -> str:
        assert self._child.stdin
        self._child.stdin.write(f"{command}\n")
        self._child.stdin.flush()
        return self._answer()

    def adopt(self) -> None:
        self.shim.adopt(self.address, SIZE, self.memfd)

    def _end(self) -> None:
        self._child.kill()
        self._child.communicate(timeout=DEADLINE_S)

    def close(self) -> None:
        self.shim.close()
        os.close(self.memfd)
        self._end()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path, build_failing_calls(tmp_path))
    try:
        yield made
    finally:
        made.close()


def test_memory_whose_discards_would_not_be_seen_is_not_taken(machine: Machine) -> None:
    machine.say("stat 1")
    with pytest.raises(MachineError, match=r"^cannot watch QEMU's memory at 0x") as refused:
        machine.adopt()
    assert refused.value.errno == errno.EIO
    machine.say("stat 0")
    machine.adopt()
    assert machine.say("punch") == "0 0"


def test_a_discard_of_memory_that_cannot_be_told_is_refused(machine: Machine) -> None:
    machine.adopt()
    machine.say("stat 1")
    assert machine.say("punch") == f"{errno.EIO} {ord('x')}"
    machine.say("stat 0")
    assert machine.say("punch") == "0 0"
