# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump goes to no file that another program put, or opened, where the unfinished dump lies; and
its file gives no right that the one before it did not."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import TargetError

SIZE = 1 << 20
DEADLINE_S = 300.0
OTHER = 54321
NAMES = {"elf": ("dump.incomplete",), "raw": ("dump.incomplete", "dump.incomplete.ldfs")}
LIST = "system.posix_acl_access"
DEFAULT_LIST = "system.posix_acl_default"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def live() -> Iterator[LiveDump]:
    with Arena(SIZE) as arena, LiveDump(arena) as made:
        arena.live[:] = 7
        yield made


def settings(format: str = "elf", **more: object) -> DumpSettings:
    return DumpSettings(format=format, granule=65536, **more)  # type: ignore[arg-type]


def dump(live: LiveDump, path: Path, how: DumpSettings) -> None:
    live.init(path, how)
    try:
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
    finally:
        live.release()


def expect_private(folder: Path) -> None:
    """The dump and its sidecar are there, and no other user reads them."""
    with open_dump(folder / "dump") as found:
        assert found.read_arena(0, SIZE) == bytes([7]) * SIZE
    for one in folder.glob("dump*"):
        status = one.stat()
        found_rights = (status.st_uid, stat.S_IMODE(status.st_mode), status.st_nlink)
        assert found_rights == (os.geteuid(), 0o600, 1), one


@as_root
@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("before", [False, True])
def test_an_empty_file_of_another_user_takes_no_dump(
    live: LiveDump, tmp_path: Path, format: str, before: bool
) -> None:
    tmp_path.chmod(0o1777)
    if before:
        dump(live, tmp_path / "dump", settings(format))
    spies = []
    for name in NAMES[format]:
        spies.append(os.open(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        os.fchown(spies[-1], OTHER, OTHER)
        os.fchmod(spies[-1], 0o666)
    try:
        dump(live, tmp_path / "dump", settings(format))
        assert [os.fstat(one).st_size for one in spies] == [0] * len(spies)
    finally:
        for one in spies:
            os.close(one)
    expect_private(tmp_path)


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("change", ["readable", "linked"])
def test_what_was_broken_off_is_used_again_only_as_it_was_made(
    live: LiveDump, tmp_path: Path, format: str, change: str
) -> None:
    target, kept = tmp_path / "dump", tmp_path / "kept"
    live.init(target, settings(format))
    live.start()
    live.release()
    inodes = [(tmp_path / name).stat().st_ino for name in NAMES[format]]
    kept.mkdir()
    for name in NAMES[format]:
        if change == "readable":
            (tmp_path / name).chmod(0o644)
        os.link(tmp_path / name, kept / name)
    before = {one.name: one.read_bytes() for one in kept.iterdir()}
    dump(live, target, settings(format))
    expect_private(tmp_path)
    assert {one.name: one.read_bytes() for one in kept.iterdir()} == before
    assert [(kept / name).stat().st_ino for name in NAMES[format]] == inodes


@as_root
def test_what_is_in_the_way_is_not_lost_for_its_owner_or_mode(
    live: LiveDump, tmp_path: Path
) -> None:
    target, other = tmp_path / "dump", tmp_path / "dump.incomplete"
    other.write_text("a letter\n")
    os.chown(other, OTHER, OTHER)
    with pytest.raises(TargetError, match="not empty and not a dump") as caught:
        live.init(target, settings())
    assert caught.value.errno == errno.EEXIST
    assert other.read_text() == "a letter\n"
    other.unlink()
    dump(live, target, settings())
    target.rename(other)
    other.chmod(0o644)
    with pytest.raises(TargetError, match="holds a consistent dump"):
        live.init(target, settings())
    with open_dump(other) as found:
        assert found.verdict == "consistent"


def access_list(user: int) -> bytes:
    """Owner and that user read and write, the group may do nothing; as setfacl writes it."""
    none = 0xFFFFFFFF
    entries = [(1, 6, none), (2, 6, user), (4, 0, none), (16, 6, none), (32, 0, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


def set_list(path: Path, kind: str) -> None:
    try:
        os.setxattr(path, kind, access_list(OTHER))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("no access lists on this file system")


def test_the_mask_of_an_access_list_is_no_right_of_the_group(
    live: LiveDump, tmp_path: Path
) -> None:
    target = tmp_path / "dump"
    dump(live, target, settings())
    set_list(target, LIST)
    assert stat.S_IMODE(target.stat().st_mode) == 0o660
    dump(live, target, settings())
    assert LIST not in os.listxattr(target)
    expect_private(tmp_path)


def test_the_folders_default_list_gives_nobody_a_right_to_the_dump(
    live: LiveDump, tmp_path: Path
) -> None:
    target = tmp_path / "dump"
    dump(live, target, settings())
    target.chmod(0o640)
    set_list(tmp_path, DEFAULT_LIST)
    dump(live, target, settings())
    assert LIST not in os.listxattr(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
