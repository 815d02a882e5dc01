# SPDX-License-Identifier: GPL-2.0-or-later
"""A user who meets the host of another, and is told whose it is and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users: needs root")

NOBODY = 65534
GROUP = 54322
Ended = list[tuple[int, str, str]]


@pytest.fixture
def as_user(run_as: Callable[..., str], open_folder: Path) -> Callable[..., Ended]:
    """as_user(lines, groups=()) -> exit code and outputs of each command line."""

    def run(*lines: str, groups: tuple[int, ...] = ()) -> Ended:
        registry = open_folder / "livedumpfs"
        shown = run_as(NOBODY, "command_lines.py", registry, json.dumps(lines), groups=groups)
        return [(code, out, err) for code, out, err in json.loads(shown)]

    return run


def test_roots_host(
    open_folder: Path, run_host: Callable[..., Any], as_user: Callable[..., Ended]
) -> None:
    host = run_host(folder=open_folder)
    pid, mount = host.process.pid, host.mountpoint
    lines = (
        "status",
        f"status --device {mount}",
        f"dump x --device {pid}",
        f"start --device {pid}",
    )
    ended = as_user(*lines)
    let_in = "run this as that user, or start the host with --group for a group that you are in"
    assert ended[0][2] == (
        "livedump: error: no host is running that this user may use, only that of "
        f"pid {pid}, user root ({let_in})\n"
    )
    for _, _, err in ended[1:]:
        assert err == (
            f"livedump: error: cannot use {mount}/livedump: Permission denied "
            f"(it is the host of user root: {let_in})\n"
        )
    assert {code for code, _, _ in ended} == {1}


def test_two_hosts_of_which_one_is_open(
    open_folder: Path, run_host: Callable[..., Any], as_user: Callable[..., Ended]
) -> None:
    """The other does not count."""
    run_host(folder=open_folder)
    shared = run_host(folder=open_folder, group=GROUP)
    member = as_user("status", groups=(GROUP,))
    assert member[0][0] == 0 and f"device  {shared.device}\n" in member[0][1]
    code, _, err = as_user("status")[0]
    assert code == 1 and "no host is running that this user may use" in err
    assert (
        as_user(f"status --device {shared.device}")[0][2].count("it is the host of user root") == 1
    )


def test_a_host_of_a_user_without_a_runtime_directory(
    as_user: Callable[..., Ended], open_folder: Path
) -> None:
    """The folder of root's hosts is there, and not this user's; nor is the one that a user gets."""
    (open_folder / "livedumpfs").mkdir(mode=0o755)
    code, _, err = as_user("host --ram 4M")[0]
    assert (code, err) == (
        1,
        f"livedump: error: cannot make {open_folder}/livedumpfs/mine-{NOBODY}: permission denied "
        "(name a directory of this user with --mount, or set XDG_RUNTIME_DIR to one)\n",
    )
