# SPDX-License-Identifier: GPL-2.0-or-later
"""Every file and every ioctl of a mount, tried by a user who has no rights, and by a member of the
group that has."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.abi import State
from livedumpfs.client import Client
from livedumpfs.control import settings_files
from tests.fixtures.program_files import program_command

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users: needs root")

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
RunAs = Callable[..., str]
DEADLINE = 300.0
USER, OTHER = 3_000_111, 3_000_222
"""No user has these ids."""
GROUP = 54321

WRITABLE = ("control/state", *(f"control/{name}" for name in settings_files.names()))
READABLE = (
    "livedump", "mem", "stats.json", "metrics", "control/failed", "control/error",
    "machine/console", "machine/registers", "machine/registers.json", "machine/map",
    "machine/state",
    "snapshot/vmcore", "snapshot/mem.raw", "snapshot/mem.lime", "snapshot/info.json",
)  # fmt: skip
FILES = (*READABLE, *WRITABLE)
FOLDERS = ("", "control", "machine", "dumps", "snapshot")
IOCTLS = {
    "START": abi.START, "SWEEP": abi.SWEEP, "INIT": abi.INIT, "RELEASE": abi.RELEASE,
    "INIT_TYPED": abi.INIT_TYPED, "SWEEP_TYPED": abi.SWEEP_TYPED, "STATUS": abi.STATUS,
}  # fmt: skip


@contextmanager
def opened(host: Host) -> Iterator[dict[str, int]]:
    """By root: the device and all that can be written."""
    files: dict[str, int] = {}
    try:
        for name in ("livedump", *WRITABLE):
            flags = os.O_RDONLY if name == "livedump" else os.O_WRONLY
            files[name] = os.open(host.mountpoint / name, flags)
        yield files
    finally:
        for fd in files.values():
            os.close(fd)


def visit(run_as: RunAs, host: Host, *groups: int) -> dict[str, str]:
    """What USER, a member of `groups`, gets for each thing that it tries; while there is a dump."""
    with Client(host.device) as client, opened(host) as handed:
        client.init(None)
        client.start()
        what = [str(host.mountpoint), FILES, FOLDERS, IOCTLS, handed]
        handles = tuple(handed.values())
        out = run_as(USER, "visit.py", json.dumps(what), groups=groups, pass_fds=handles)
        found: dict[str, str] = json.loads(out)
        print(f"{len(found)} attempts")
        if not groups:
            assert client.status().state is State.START
        client.release()
    return found


@pytest.mark.parametrize(
    ("others", "group"), [(False, None), (True, None), (True, GROUP)], ids=["", "others", "group"]
)
def test_a_stranger_gets_nothing(
    others: bool, group: int | None, open_folder: Path, run_host: HostMaker, run_as: RunAs
) -> None:
    """Not by name, and not with files that root has opened and handed on; STATUS alone is no
    secret to a process that was handed the device."""
    host = run_host(others=others, group=group, folder=open_folder)
    found = visit(run_as, host)
    allowed = {what for what, result in found.items() if result not in ("EACCES", "EPERM")}
    expected = {"handed ioctl STATUS"} if others else set()
    assert allowed == expected, {what: found[what] for what in allowed}


def test_a_member_gets_what_the_modes_say(
    open_folder: Path, run_host: HostMaker, run_as: RunAs
) -> None:
    """A member may read all, write what can be written, and take every step: on files of its
    own."""
    host = run_host(group=GROUP, folder=open_folder)
    found = visit(run_as, host, GROUP)
    for name in FOLDERS:
        assert found[f"list {name}"] == "ok"
    for name in FILES:
        assert found[f"stat {name}"] == "ok"
        # An open snapshot file goes with its dump, not its name; the name goes with the dump, too.
        assert found[f"read {name}"] == "ok"
        may = "ok" if name in WRITABLE else "EACCES"
        # These two would be empty then, and no setting changes while there is a dump.
        emptied = name in ("control/output", "control/sidecar")
        assert found[f"truncate {name}"] == ("EBUSY" if emptied else may)
        # A device can be opened for writing, as in /dev, and takes no write.
        opens = "ok" if name == "livedump" else may
        assert found[f"write {name}"] == found[f"both {name}"] == opens
        assert found[f"chmod {name}"] in ("EPERM", "EROFS")
        assert found[f"unlink {name}"] in ("EACCES", "EROFS")
    for name in IOCTLS:
        assert found[f"ioctl {name}"] not in ("EACCES", "EPERM", "ENOTTY")
        if name != "STATUS":
            assert found[f"handed ioctl {name}"] == "EACCES"
    for name in WRITABLE:
        assert found[f"handed write {name}"] == "EACCES"


@pytest.mark.parametrize("group", [None, GROUP])
def test_modes_and_owners(group: int | None, run_host: HostMaker) -> None:
    """As docs/security.md has them; no user but the owner and the group's members has any right."""
    host = run_host(others=True, group=group)
    with Client(host.device) as client:
        client.init(None)
        client.start()
        for name in (*FILES, *FOLDERS):
            status = os.stat(host.mountpoint / name)
            own = 0o5 if name in FOLDERS else 0o6 if name in (*WRITABLE, "livedump") else 0o4
            mode = own << 6 | (own << 3 if group else 0)
            assert stat.S_IMODE(status.st_mode) == mode, name
            owner = (os.geteuid(), os.getegid() if group is None else group)
            assert (status.st_uid, status.st_gid) == owner


def test_a_set_user_id_program_is_no_tool(open_folder: Path, run_host: HostMaker) -> None:
    """A member opens a file and gives it to a program of more rights as its output: what that
    writes does not count as root's wish."""
    host = run_host(group=GROUP, folder=open_folder)
    target = open_folder / "roots"
    host.write("control/output", str(target))
    ids = map(str, (USER, USER, GROUP))
    done = subprocess.run(
        program_command(__file__, "on_anothers_file.py", host.mountpoint, *ids),
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["EACCES", "EACCES"], done.stderr
    assert not target.exists()
    assert "another user did" in host.read("control/error")


SECRET = "what-a-wrong-pointer-led-to"


def test_errors_are_their_users(open_folder: Path, run_host: HostMaker, run_as: RunAs) -> None:
    """A sentence has the path in it, and that may be anything of the caller's memory."""
    host = run_host(group=GROUP, folder=open_folder)

    def run(user: int, name: str) -> str:
        return run_as(user, name, host.mountpoint, SECRET, groups=(GROUP,), cwd="/")

    assert run(USER, "refused_init.py").split() == [str(errno.ENOENT)]
    assert SECRET in run(USER, "read_error.py")
    assert SECRET not in run(OTHER, "read_error.py")
    assert SECRET in host.read("control/error")
