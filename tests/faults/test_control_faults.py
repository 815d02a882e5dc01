# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input on a real host's mount: one clear error, and nothing else happens."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.abi import State
from livedumpfs.client import Client, InitOptions
from livedumpfs.errors import LivedumpError, StateError, TargetError
from tests.fixtures.program_files import program_command

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DEADLINE = 300.0
NOBODY = 65534
GROUP = 54321

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="takes the rights of other users: needs root"
)

libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def refused(code: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == code, caught.value


def error_of(host: Host) -> str:
    return str(host.read("control/error"))


def raw_ioctl(device: str, command: int, argument: int) -> None:
    """With any pointer: Python's own takes only small numbers."""
    fd = os.open(device, os.O_RDONLY)
    try:
        if libc.ioctl(fd, ctypes.c_ulong(command), ctypes.c_void_p(argument)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(fd)


def ask(host: Host, target: str, *changes: str, wrap: tuple[str, ...] = ()) -> str:
    """INIT in a process of its own, that changes as programs/init_as.py says: "done", or errno and
    sentence."""
    done = subprocess.run(
        [*wrap, *program_command(__file__, "init_as.py", host.device, target, *changes)],
        env=host.environment, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ------------------------------------------------------------------- wrong requests


@pytest.mark.parametrize("pointer", [1, 0x1000, 0x7FFF_FFFF_F000, 2**63])
def test_a_path_that_cannot_be_read(host: Host, pointer: int) -> None:
    with refused(errno.EFAULT):
        raw_ioctl(host.device, abi.INIT, pointer)
    assert f"cannot read the target's path at {pointer:#x}" in error_of(host)
    host.runs_on()


def test_a_path_longer_than_path_max(host: Host) -> None:
    long = ctypes.create_string_buffer(b"/" + b"x" * 5000)
    with refused(errno.ENAMETOOLONG):
        raw_ioctl(host.device, abi.INIT, ctypes.addressof(long))
    with Client(host.device) as client, refused(errno.ENAMETOOLONG):
        client.init("/" + "x" * 5000)
    with Client(host.device) as client, refused(errno.ENAMETOOLONG):
        client.init("/tmp/" + "x" * 300)
    assert "File name too long" in error_of(host)


@pytest.mark.parametrize("command", [0xFF00, 0xFF03, 0xFF66, 0x5401, 0x40086681, 0xC0FFFF67])
def test_an_unknown_ioctl(host: Host, command: int) -> None:
    room = ctypes.create_string_buffer(1 << 14)
    with refused(errno.ENOTTY):
        raw_ioctl(host.device, command, ctypes.addressof(room))


def test_ioctls_belong_to_the_misc_device_only(host: Host) -> None:
    with open(host.mountpoint / "stats.json") as file, refused(errno.ENOTTY):
        fcntl.ioctl(file, abi.RELEASE)


def test_wrong_order(host: Host, tmp_path: Path) -> None:
    with Client(host.device) as client:
        for step in (client.start, client.sweep):
            with pytest.raises(StateError) as caught:
                step()
            assert caught.value.errno == errno.EINVAL
        client.init(str(tmp_path / "out"))
        with pytest.raises(StateError) as caught:
            client.init(str(tmp_path / "other"))
        assert caught.value.errno == errno.EBUSY
        assert not (tmp_path / "other").exists()
        with pytest.raises(StateError):
            client.sweep()
        client.release()
        client.release()
        assert client.status().state is State.UNINIT
    host.runs_on()


def test_settings_of_a_dump_that_exists(host: Host) -> None:
    with Client(host.device) as client:
        client.init(None)
        with refused(errno.EBUSY):
            host.write("control/policy", "fail")
        client.release()
    host.write("control/policy", "fail")
    with refused(errno.EINVAL):
        host.write("control/policy", "perhaps")
    assert "'perhaps' is none of block, fail, spill" in error_of(host)


# ------------------------------------------------------------------- wrong targets


def refuse_target(host: Host, target: str, code: int, sentence: str) -> None:
    with Client(host.device) as client:
        with pytest.raises(LivedumpError) as caught:
            client.init(target)
        assert caught.value.errno == code, caught.value
        assert isinstance(caught.value, TargetError)
        assert sentence in str(caught.value)
        assert client.status().state in (State.UNDEFINED, State.UNINIT)


def test_targets_that_will_not_do(host: Host, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    full = tmp_path / "full"
    full.write_text("another program's data\n")
    missing = str(tmp_path / "none" / "out")
    refuse_target(host, missing, errno.ENOENT, "there is no directory")
    refuse_target(host, str(tmp_path), errno.EISDIR, "Is a directory")
    refuse_target(host, str(fifo), errno.ENXIO, "no process reads it")
    refuse_target(host, "/dev/null", errno.EINVAL, "it is a character device")
    refuse_target(host, str(full), errno.EEXIST, "it is not empty and not a dump")
    assert full.read_text() == "another program's data\n"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere" / "x")
    refuse_target(host, str(dangling), errno.EEXIST, "a link that leads nowhere")
    with Client(host.device) as client:
        client.init(str(full), InitOptions(force=True))
        client.release()
    host.runs_on()


@as_root
def test_devices_that_will_not_do(
    host: Host, tmp_path: Path, loop_device: Callable[..., str]
) -> None:
    small = loop_device(1 << 20)
    refuse_target(host, small, errno.ENOSPC, "the device has 1 MiB")
    read_only = loop_device(32 << 20, read_only=True)
    with Client(host.device) as client, pytest.raises(TargetError) as caught:
        client.init(read_only)
    assert caught.value.errno in (errno.EACCES, errno.EROFS, errno.EPERM)
    busy = loop_device(32 << 20)
    held = os.open(busy, os.O_RDWR | os.O_EXCL)
    try:
        refuse_target(host, busy, errno.EBUSY, "mounted or in use")
    finally:
        os.close(held)


# ------------------------------------------------------------------------- rights


def become(*groups: int, when: str = "first") -> str:
    """For `ask`: gives up root for a user in `groups` besides the own group."""
    return f"{when}:groups:{','.join(map(str, (NOBODY, *groups)))}"


@as_root
def test_a_stranger_may_not_enter(open_folder: Path, run_host: HostMaker) -> None:
    """Neither through the door nor with a descriptor that was handed over."""
    host = run_host(folder=open_folder)
    looks = subprocess.run(
        ["cat", host.device], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True,
        text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert looks.returncode != 0 and "Permission denied" in looks.stderr
    assert ask(host, "/tmp/x", become(when="then")).startswith(f"{errno.EACCES} ")


@as_root
def test_a_stranger_may_not_control_where_others_may_enter(
    open_folder: Path, run_host: HostMaker
) -> None:
    host = run_host(group=GROUP, folder=open_folder)
    for name in ("livedump", "control/state", "mem"):
        looks = subprocess.run(
            ["cat", host.mountpoint / name], user=NOBODY, group=NOBODY, extra_groups=[],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert looks.returncode != 0 and "Permission denied" in looks.stderr
    assert ask(host, "/tmp/x", become(when="then")).startswith(f"{errno.EACCES} ")
    assert f"user {NOBODY} may not control this host" in error_of(host)


@as_root
def test_the_callers_rights_decide_about_the_target(open_folder: Path, run_host: HostMaker) -> None:
    """A member of the group that may control the host can dump only to what that member may
    write."""
    host = run_host(group=GROUP, folder=open_folder)
    private, own = open_folder / "private", open_folder / "own"
    private.mkdir(mode=0o700)
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    denied = f"{errno.EACCES} cannot open "
    assert ask(host, str(private / "out"), become(GROUP)).startswith(denied)
    assert not (private / "out").exists()
    readable = open_folder / "readable"
    readable.write_text("")
    readable.chmod(0o644)
    assert ask(host, str(readable), become(GROUP)).startswith(denied)
    assert ask(host, str(own / "out"), become(GROUP)) == "done"
    assert (own / "out.incomplete").stat().st_uid == NOBODY
    assert (own / "out.incomplete").stat().st_mode & 0o777 == 0o600


@as_root
def test_the_callers_groups_count(open_folder: Path, run_host: HostMaker) -> None:
    host = run_host(group=GROUP, folder=open_folder)
    shared = open_folder / "shared"
    shared.mkdir()
    os.chown(shared, 0, 4711)
    shared.chmod(0o770)
    assert ask(host, str(shared / "out"), become(GROUP, 4711)) == "done"
    (shared / "out.incomplete").unlink()
    assert ask(host, str(shared / "out"), become(GROUP)).startswith(f"{errno.EACCES} ")


@as_root
def test_a_root_without_capabilities_is_not_given_them(host: Host, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, NOBODY, NOBODY)
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert ask(host, str(closed / "out"), wrap=bare).startswith(f"{errno.EACCES} ")
    assert ask(host, str(closed / "out")) == "done"


@as_root
def test_the_callers_root_directory_counts(host: Host, tmp_path: Path) -> None:
    jail = tmp_path / "jail"
    jail.mkdir()
    assert ask(host, "/out", f"then:chroot:{jail}") == "done"
    assert (jail / "out.incomplete").exists()
    assert not list(Path("/").glob("out*"))


@as_root
def test_the_callers_mounts_count(host: Host, tmp_path: Path) -> None:
    own = subprocess.run(
        ["unshare", "--mount", "true"], capture_output=True, timeout=300, check=False
    )
    if own.returncode:
        pytest.skip(f"no mount namespace of one's own here: {own.stderr.decode().strip()}")
    place = tmp_path / "place"
    place.mkdir()
    script = f'mount -t tmpfs none {place} && "$@" && ls {place}'
    wrap = ("unshare", "--mount", "sh", "-c", script, "sh")
    assert ask(host, str(place / "out"), wrap=wrap).split() == ["done", "out.incomplete"]
    assert os.listdir(place) == []


@pytest.mark.parametrize("kind", ["missing", "file", "full"])
def test_mountpoints_that_will_not_do(kind: str, tmp_path: Path, run_host: HostMaker) -> None:
    from livedumpfs.mount.mountpoint import check_mountpoint

    place = tmp_path / "place"
    if kind == "file":
        place.write_text("")
    elif kind == "full":
        place.mkdir()
        (place / "x").write_text("")
    code = {"missing": errno.ENOENT, "file": errno.ENOTDIR, "full": errno.ENOTEMPTY}[kind]
    with refused(code):
        check_mountpoint(str(place))
