# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that are files: what is refused, and that nothing is lost by a refusal."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from livedumpfs.errors import TargetError
from livedumpfs.formats import Sync, Write, Zero
from livedumpfs.rights.folder import Folder
from livedumpfs.targets import (
    Kind,
    Target,
    adopt_sidecar,
    adopt_target,
    apply,
    open_in_place,
    open_sidecar,
    open_target,
    retire_in,
    retire_sidecar,
    sidecar_path,
)
from tests.fixtures.open_files import no_file_stays_open

MEMORY = bytes(range(256)) * 256


@contextmanager
def refused(code: int, cause: str = "") -> Iterator[None]:
    with no_file_stays_open(), pytest.raises(TargetError, match=cause or None) as caught:
        yield
    assert caught.value.errno == code
    assert isinstance(caught.value, OSError)
    assert "\n" not in str(caught.value)


def test_a_new_file_is_made_private_and_takes_the_size(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    with open_in_place(path) as target:
        assert (target.kind, target.created, target.capacity) == (Kind.FILE, True, None)
        assert not target.reads_zero
        target.prepare(1 << 30)
        assert target.reads_zero
        assert target.size == 1 << 30
        target.pwrite(b"abc", 5)
        assert target.pread(8, 1) == b"\0\0\0\0abc\0"
        target.sync()
    assert path.stat().st_blocks < 100, "the file is not sparse"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_pread_ends_where_the_file_ends(tmp_path: Path) -> None:
    with open_in_place(tmp_path / "dump") as target:
        target.prepare(10)
        assert len(target.pread(100, 4)) == 6
        assert target.pread(100, 10) == b""


@pytest.mark.parametrize("sort", ["socket", "character"])
def test_what_is_neither_file_nor_device_is_refused(tmp_path: Path, sort: str) -> None:
    path = tmp_path / sort
    listener = socket.socket(socket.AF_UNIX)
    if sort == "socket":
        listener.bind(str(path))
    else:
        path = Path("/dev/null")
    with refused(errno.EINVAL, f"cannot dump to {path}: it is a "):
        open_target(path)
    listener.close()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with refused(errno.EISDIR, "Is a directory"):
        open_target(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(TargetError) as caught:
        adopt_target(fd, "the directory")
    assert caught.value.errno == errno.EISDIR
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing/dump", errno.ENOENT),
        ("n" * 300, errno.ENAMETOOLONG),
        ("d/" * 3000 + "dump", errno.ENAMETOOLONG),
        ("file/dump", errno.ENOTDIR),
        ("nul\0byte", errno.EINVAL),
    ],
)
def test_paths_that_cannot_be_opened_are_named(tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "file").write_bytes(b"")
    with refused(code, "cannot open"):
        open_target(os.path.join(tmp_path, name))


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which needs root")
def test_a_file_that_one_may_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(b"")
    path.chmod(0o444)
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    os.seteuid(65534)
    try:
        with refused(errno.EACCES, "Permission denied"):
            open_target(path)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_PATH])
def test_a_descriptor_for_less_than_read_and_write_is_refused(tmp_path: Path, flags: int) -> None:
    path = tmp_path / "dump"
    path.write_bytes(b"")
    with pytest.raises(TargetError) as caught:
        adopt_target(os.open(path, flags), str(path))
    assert caught.value.errno == errno.EACCES


def test_an_append_descriptor_writes_where_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(b"")
    with adopt_target(os.open(path, os.O_RDWR | os.O_APPEND), str(path)) as target:
        target.prepare(8)
        target.pwrite(b"xy", 2)
    assert path.read_bytes() == b"\0\0xy\0\0\0\0"


def test_foreign_content_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_bytes(b"dear reader")
    with refused(errno.EEXIST, "not empty and not a dump.*force"):
        open_target(path)
    assert path.read_bytes() == b"dear reader"
    with open_in_place(path, force=True) as target:
        assert path.read_bytes() == b"dear reader", "opening alone changes nothing"
        target.prepare(4096)
    assert path.read_bytes() == bytes(4096)


@pytest.mark.parametrize("until", ["opening", "started", "seal"])
@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_an_older_dump_may_be_overwritten(
    tmp_path: Path, write_dump: Callable[..., object], format: str, until: str
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, format=format, until=until)
    with open_target(path) as target:
        assert target.goal and target.goal.standing
        assert target.goal.verdict == ("consistent" if until == "seal" else None)
    with open_in_place(path, force=True) as target:
        assert target.holds_dump()
    if until == "seal":
        with refused(errno.EEXIST, "holds a consistent dump, which would be lost"):
            open_in_place(path)
    else:
        open_in_place(path).close()


def test_a_file_that_only_lies_beside_a_sidecar_is_foreign(
    tmp_path: Path, write_dump: Callable[..., object]
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, format="raw")
    path.unlink()
    path.write_bytes(b"something else")
    with refused(errno.EEXIST):
        open_target(path)


def test_a_file_that_changed_after_its_sidecar_is_foreign(
    tmp_path: Path, write_dump: Callable[..., object]
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, format="raw")
    now = path.stat().st_mtime
    os.utime(path, (now + 60, now + 60))
    with refused(errno.EEXIST):
        open_target(path)


def test_two_dumps_do_not_share_a_file(tmp_path: Path) -> None:
    with open_target(tmp_path / "dump"), refused(errno.EBUSY, "another dump"):
        open_target(tmp_path / "dump")
    open_target(tmp_path / "dump").close()


def test_a_size_beyond_the_limit_loses_nothing(
    tmp_path: Path, write_dump: Callable[..., object]
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY)
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open_in_place(path, force=True) as target:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, old[1]))
        try:
            with refused(errno.EFBIG, "cannot make room"):
                target.prepare(1 << 40)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before


def test_abandon_takes_away_only_a_file_of_its_own(tmp_path: Path) -> None:
    new, old, used = tmp_path / "new", tmp_path / "old", tmp_path / "used"
    old.write_bytes(b"")
    for path in (new, old, used):
        target = open_in_place(path)
        if path == used:
            target.prepare(1)
        target.abandon()
    assert [path.exists() for path in (new, old, used)] == [False, True, False]


def test_a_sidecar_that_cannot_be_removed_is_durably_emptied(
    tmp_path: Path, write_dump: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the target is: else a power loss could bring it back over another memory."""
    write_dump(tmp_path / "dump", MEMORY, format="raw")
    synced, real = [], os.fsync

    def fsync(fd: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size))
        real(fd)

    def remove(self: Folder, name: str) -> None:
        raise PermissionError(errno.EACCES, name)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Folder, "remove", remove)
    folder = Folder(os.open(tmp_path, os.O_RDONLY))
    try:
        retire_in(folder, "dump.ldfs")
    finally:
        folder.close()
    assert synced == [(str(tmp_path / "dump.ldfs"), 0)]


def test_close_may_be_called_twice(tmp_path: Path) -> None:
    target = open_target(tmp_path / "dump")
    target.close()
    target.close()
    with pytest.raises(TargetError, match="Bad file descriptor"):
        target.sync()


def test_steps_are_carried_out(tmp_path: Path) -> None:
    with open_in_place(tmp_path / "a") as target, open_in_place(tmp_path / "b") as sidecar:
        target.pwrite(b"x" * 100, 0)
        steps = [Write("sidecar", 3, b"abc"), Zero("target", 10, 1000), Sync("target")]
        apply(steps, target, sidecar)
    assert (tmp_path / "a").read_bytes() == b"x" * 10 + bytes(90)
    assert (tmp_path / "b").read_bytes() == b"\0\0\0abc"


def test_a_failing_write_names_target_and_cause() -> None:
    target = Target(os.open("/dev/full", os.O_RDWR), "/dev/full")
    with target, pytest.raises(TargetError) as caught:
        target.pwrite(b"x", 0)
    assert str(caught.value) == "cannot write /dev/full: No space left on device"
    assert caught.value.errno == errno.ENOSPC


def test_sidecars_lie_beside_files(tmp_path: Path) -> None:
    assert sidecar_path("a/dump", os.stat(__file__)) == "a/dump.ldfs"


def test_a_sidecar_never_replaces_what_is_none(
    tmp_path: Path, write_dump: Callable[..., object]
) -> None:
    path = tmp_path / "state" / "x.ldfs"
    with refused(errno.ENOENT, "there is no directory"):
        open_sidecar(path)
    open_sidecar(path, make_folder=True).close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.write_bytes(b"precious")
    with refused(errno.EEXIST):
        open_sidecar(path)
    write_dump(tmp_path / "dump", MEMORY)
    with refused(errno.EEXIST):
        open_sidecar(tmp_path / "dump")
    assert path.read_bytes() == b"precious"


def test_a_device_is_no_sidecar() -> None:
    with pytest.raises(TargetError) as caught:
        adopt_sidecar(os.open("/dev/null", os.O_RDWR), "/dev/null")
    assert caught.value.errno == errno.EINVAL


def test_retire_removes_sidecars_and_nothing_else(
    tmp_path: Path, write_dump: Callable[..., object]
) -> None:
    write_dump(tmp_path / "dump", MEMORY, format="raw")
    other = tmp_path / "other.ldfs"
    other.write_bytes(b"letter")
    assert retire_sidecar(str(tmp_path / "dump.ldfs"))
    assert not (tmp_path / "dump.ldfs").exists()
    assert not retire_sidecar(str(tmp_path / "dump.ldfs"))
    assert not retire_sidecar(str(other))
    assert other.exists()
