# SPDX-License-Identifier: GPL-2.0-or-later
"""forget, gc and convert are killed before any of their steps, and at any time: no other dump loses
anything, verify says so, and the next command works.

LIVEDUMP_KILLS says at how many points (`make kill-points`: 100; default: 3), LIVEDUMP_SEED repeats
a run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from livedumpfs.dumpfile import open_dump, verify_store
from livedumpfs.stores import Retention, collect, create_store, kept, list_dumps, open_store
from tests.fixtures.program_files import program_command
from tests.fixtures.small_stores import BEGAN, HOUR, keep_file
from tests.fixtures.written_dumps import DumpWriter
from tests.stores.stored_dumps import CHUNK, MACHINE, PAGES, memory_of

KILLS = int(os.environ.get("LIVEDUMP_KILLS", "3"))
DEADLINE = 300
DUMPS = 5
KEEP = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write_dump: DumpWriter) -> Path:
    """A folder with a store of a few dumps, each an hour after the other, the files that they are,
    what a broken-off one left, and one more file."""
    folder = tmp_path_factory.mktemp("made")
    with create_store(str(folder / "store")) as store:
        for number in range(DUMPS + 2):
            memory = memory_of(1, tuple(range(number, PAGES, DUMPS + 2)))
            path = folder / f"dump-{number}"
            write_dump(path, memory, granule=CHUNK, machine=MACHINE)
            if number <= DUMPS:
                at = BEGAN + number * HOUR
                keep_file(store, path, path.name, instant_ns=at, publish=number < DUMPS)
    return folder


COMMANDS = {
    "forget": ("forget", "store", "--keep-last", str(KEEP)),
    "gc": ("gc", "store"),
    "convert": ("convert", f"dump-{DUMPS + 1}", "store:store"),
}


def killed(folder: Path, command: str, chosen: random.Random, step: int) -> bool:
    """Run the command there and kill it before that step; 0: at some time. Whether it came to its
    end."""
    words = COMMANDS[command]
    process = subprocess.Popen(
        program_command(__file__, "killed_at.py", str(step or 1 << 30), *words),
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    if not step:
        time.sleep(chosen.uniform(0.3, 0.8))
        process.kill()
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode in (0, -signal.SIGKILL), err
    return "steps" in err


def steps(folder: Path, command: str) -> int:
    """How many steps it takes, in a copy of the folder."""
    copy = folder.parent / "counted"
    shutil.copytree(folder, copy)
    done = subprocess.run(
        program_command(__file__, "killed_at.py", str(1 << 30), *COMMANDS[command]),
        cwd=copy, text=True, capture_output=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    shutil.rmtree(copy)
    return int(done.stderr.split()[-1])


def must_be_there(folder: Path, command: str) -> set[str]:
    """Dumps that the command must not take away."""
    with open_store(str(folder / "store")) as store:
        if command != "forget":
            return set(store.names())
        return set(kept(list_dumps(store), Retention(last=KEEP)))


def expect_whole(folder: Path, there: set[str]) -> None:
    """All of the dumps that are in the store, byte for byte, and those of `there` are."""
    place = folder / "store"
    with open_store(str(place)) as store:
        report = verify_store(store)
        assert report.problems == []
        assert there <= {one.name for one in report.dumps}
        names = store.names()
    for name in names:
        with open_dump(f"{place}#{name}") as dump:
            memory = dump.read_arena(0, dump.arena_size)
        file = folder / (name if (folder / name).exists() else f"dump-{DUMPS + 1}")
        with open_dump(file) as dump:
            assert memory == dump.read_arena(0, dump.arena_size)


@pytest.mark.timeout(120 + 20 * KILLS)
@pytest.mark.parametrize("command", COMMANDS)
def test_kills(made: Path, tmp_path: Path, command: str) -> None:
    """Each kill in a new copy; sometimes the next command is killed, too."""
    seed = int(os.environ.get("LIVEDUMP_SEED", "0")) or random.randrange(1 << 32)
    print(f"LIVEDUMP_SEED={seed}")
    chosen = random.Random(seed)
    ended, most = 0, steps(made, command)
    for number in range(-(-KILLS // len(COMMANDS))):
        folder = tmp_path / f"{number}"
        shutil.copytree(made, folder)
        there = must_be_there(folder, command)
        step = chosen.randrange(1, most + 1) if number % 5 < 4 else 0
        ended += killed(folder, command, chosen, step)
        expect_whole(folder, there)
        if chosen.random() < 0.5:
            killed(folder, "gc", chosen, int(2 ** chosen.uniform(0, 6)))
            expect_whole(folder, there)
        finish(folder, command, there)
        shutil.rmtree(folder)
    print(f"{command}: {ended} of {number + 1} came to their end, of {most} steps")
    assert ended <= number


def finish(folder: Path, command: str, there: set[str]) -> None:
    """The command once more, and gc: as if nothing had been."""
    words = [sys.executable, "-m", "livedumpfs.cli", *COMMANDS[command]]
    subprocess.run(words, cwd=folder, check=True, timeout=DEADLINE, capture_output=True)
    expect_whole(folder, there)
    with open_store(str(folder / "store")) as store:
        collect(store)
        again = collect(store)
        assert (again.chunks, again.records, again.unfinished, again.missing) == (0, 0, 0, 0)
        needed = {one for name in store.names() for one in store.index(name).unique()}
        assert {identity for identity, _ in store.chunks.every()} == needed
        left = {path.name for path in Path(store.url).iterdir()}
        files = {f"{name}.{kind}" for name in store.names() for kind in ("caibx", "json")}
        assert left == files | {"lock", "livedumpfs.json", "default.castr"}
    expect_whole(folder, there)
