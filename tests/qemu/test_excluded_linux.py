# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump --exclude` of a Debian guest under load: what makedumpfile leaves is a dump for crash and
drgn. `make test-qemu`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import drgn
import pytest
from drgn.helpers.linux import cmdline, find_task, get_dmesg

from livedumpfs.cli.exclude import level
from tests.fixtures import forks
from tests.qemu.lengths import LONG
from tests.qemu.test_debuggers import (
    DEADLINE_S,
    check_tasks,
    crash,
    debugger,
    next_tasks,
    rest,
    tasks_of_crash,
    tasks_of_drgn,
    tools,
)

__all__ = ["tools"]  # a fixture

pytestmark = [
    pytest.mark.debuggers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not LONG, reason="`make test-qemu`; pages of zeros in integration/"),
]
KINDS = ("zero", "cache", "user", "free")


def livedump(*words: object) -> str:
    done = forks.run(
        [sys.executable, "-m", "livedumpfs.cli", *map(str, words)],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize("kinds", [KINDS[:1], KINDS], ids=["zero", "four"])
def test_tasks_and_log_are_left(
    tools: None, hosted: Any, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    """Data of processes is there, or cannot be read: no zeros stand in for it."""
    del tools
    _, device, guest = hosted
    target = tmp_path / "dump"
    rest(guest)
    before = next_tasks(guest)
    said = livedump("dump", "--device", device, "--exclude", ",".join(kinds), target)
    after = next_tasks(guest)
    guest.goes_on()
    assert re.search(r"^verdict +consistent$", said, re.MULTILINE), said
    print(f"\n{said}")

    listed, log = crash(target, tmp_path, "ps", "log")
    program = debugger(target)
    assert tasks_of_crash(listed) == tasks_of_drgn(program)
    check_tasks(tasks_of_drgn(program), before, after)
    assert "Linux version" in log and lines(log) == lines(get_dmesg(program).decode())

    sleeper = find_task(program, next(pid for pid, name in before.items() if name == "sleep"))
    if "user" in kinds:
        with pytest.raises(drgn.FaultError):
            cmdline(sleeper)
    else:
        assert cmdline(sleeper) == [b"sleep", b"100000"]

    assert "the file is as makedumpfile wrote it" in livedump("verify", target)
    told = json.loads(livedump("info", target, "--json"))
    assert (told["verdict"], told["level"]) == ("consistent", level(",".join(kinds)))
    found = {name for name in KINDS if told["excluded"].get(name)}
    assert found == {*kinds}, told["excluded"]
    assert target.stat().st_size < told["arena_size"] // 2
