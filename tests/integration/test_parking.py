# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs held at random instants: registers and memory of one instant, and a guest that never knows.

LIVEDUMP_STOPS=1000 makes the long run of `make exact`; `make test` takes a smaller number.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from livedumpfs.machines import Registers, UnicornMachine
from tests.fixtures.program_files import program_file

RAM = 8 << 20
STOPS = int(os.environ.get("LIVEDUMP_STOPS", "60"))
DEADLINE = 300.0

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest that ends by itself."""
    source = program_file(__file__, "parked_work.S")
    output = tmp_path_factory.mktemp("work") / "work.elf"
    command = ["gcc", "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x100000"]
    command += ["-Wl,--build-id=none", "-Wl,-z,noexecstack", "-o", str(output), str(source)]
    subprocess.run(command, check=True, timeout=300)
    return output


def running(machine: UnicornMachine) -> bool:
    """False: all have halted for good."""
    states = {status.state for status in machine.status()}
    assert states <= {"running", "idle", "halted"}, machine.status()
    return states != {"halted"}


def result(machine: UnicornMachine) -> tuple[list[Registers], str, int]:
    """All that the guest has computed, once it has ended."""
    memory = hashlib.blake2b(machine.arena.read(0, RAM)).hexdigest()
    return machine.registers(), memory, len(machine.console())


def undisturbed(guest: Path, vcpus: int) -> tuple[list[Registers], str, int]:
    """What comes out when no thread looks at the machine."""
    end = time.monotonic() + DEADLINE
    with UnicornMachine(RAM, vcpus, guest=guest) as machine:
        while running(machine):
            assert time.monotonic() < end, machine.status()
            time.sleep(0.01)
        return result(machine)


def look(machine: UnicornMachine) -> None:
    """At the held machine: each vCPU's two counts are of one instant, and nothing moves."""
    first = machine.registers()
    for vcpu, registers in enumerate(first):
        counted = int.from_bytes(machine.read_physical(0x200000 + (vcpu << 20), 8), "little")
        assert counted == registers["r15"], (vcpu, registers)
    memory = hashlib.blake2b(machine.arena.read(0x200000, 0x80000)).digest()
    assert machine.registers() == first
    assert hashlib.blake2b(machine.arena.read(0x200000, 0x80000)).digest() == memory


def run_with_stops(guest: Path, vcpus: int, rng: random.Random) -> tuple[int, object]:
    """(stops while the guest ran, its result). Every third stop follows the last one at once."""
    stops = 0
    end = time.monotonic() + DEADLINE
    with UnicornMachine(RAM, vcpus, guest=guest) as machine:
        while running(machine):
            assert time.monotonic() < end, machine.status()
            if stops % 3:
                time.sleep(rng.random() / 200)
            machine.quiesce(DEADLINE)
            look(machine)
            machine.resume()
            stops += 1
        return stops, result(machine)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_a_guest_that_is_held_computes_what_it_would_have(work: Path, vcpus: int) -> None:
    expected = undisturbed(work, vcpus)
    assert {registers["r15"] for registers in expected[0]} == {20480}
    rng, stops, runs = random.Random(vcpus), 0, 0
    while stops < STOPS:
        held, found = run_with_stops(work, vcpus, rng)
        assert found == expected
        stops, runs = stops + held, runs + 1
    print(f"{vcpus} vCPUs: {stops} stops in {runs} runs, each of the same result")
