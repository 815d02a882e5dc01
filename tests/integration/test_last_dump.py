# SPDX-License-Identifier: GPL-2.0-or-later
"""The last good dump is there until the next one is: dumps to files that hold one already."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.cli.proof import prove_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import MachineError, TargetError
from livedumpfs.rights.folder import Folder, refused

MIB = 1 << 20
SIZE = 2 * MIB
DEADLINE_S = 300.0
FORMATS = ("elf", "raw", "kdump")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def live() -> Iterator[LiveDump]:
    with Arena(SIZE) as arena, LiveDump(arena) as made:
        arena.live[:] = 1
        yield made


def settings(format: str = "elf", **more: object) -> DumpSettings:
    return DumpSettings(format=format, granule=65536, **more)  # type: ignore[arg-type]


def dump(live: LiveDump, path: Path | str, value: int, how: DumpSettings) -> str:
    """A whole one of memory that is all `value`."""
    live.machine.arena.live[:] = value
    live.init(path, how)
    try:
        live.start()
        live.sweep()
        return live.finish(DEADLINE_S, check=False)
    finally:
        live.release()


def break_off(live: LiveDump, path: Path | str, how: DumpSettings) -> None:
    """After START."""
    live.machine.arena.live[:] = 9
    live.init(path, how)
    live.start()
    live.machine.arena.live[:] = 8
    live.release()


def holds(path: Path | str, value: int) -> bool:
    """Whether that is a consistent dump of memory that was all `value`."""
    with open_dump(path) as found:
        assert found.verdict == "consistent"
        assert prove_dump(found).ok
        return found.read_arena(0, SIZE) == bytes([value]) * SIZE


def listing(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def torn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedumpfs.dump.run.judge", lambda _: "torn")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("before", FORMATS)
def test_a_dump_that_is_broken_off_leaves_the_last_one(
    live: LiveDump, tmp_path: Path, before: str, format: str
) -> None:
    target = tmp_path / "dump"
    dump(live, target, 1, settings(before))
    kept = listing(tmp_path)
    break_off(live, target, settings(format))
    assert {name: listing(tmp_path)[name] for name in kept} == kept
    assert holds(target, 1)
    assert live.target_path == f"{target}.incomplete"
    with open_dump(f"{target}.incomplete") as found:
        assert (found.format, found.verdict) == (format, "incomplete")
    # And what it left is in no later dump's way.
    assert dump(live, target, 2, settings(format)) == "consistent", live.failure
    assert live.failure is None and live.target_path == str(target)
    assert set(listing(tmp_path)) == ({"dump", "dump.ldfs"} if format == "raw" else {"dump"})
    assert holds(target, 2)


def test_until_the_seal_the_last_one_is_there(live: LiveDump, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    dump(live, target, 1, settings())
    live.machine.arena.live[:] = 2
    live.init(target, settings())
    assert holds(target, 1)
    live.start()
    assert holds(target, 1)
    live.sweep()
    live.finish(DEADLINE_S)
    assert holds(target, 2)
    live.release()


def test_a_dump_that_never_began_leaves_nothing(live: LiveDump, tmp_path: Path) -> None:
    for format in FORMATS:
        live.init(tmp_path / "dump", settings(format))
        assert f"dump.incomplete{'.ldfs' if format == 'raw' else ''}" in listing(tmp_path)
        live.release()
        assert listing(tmp_path) == {}


def test_mode_and_owner_stay_and_hard_links_keep_the_old(live: LiveDump, tmp_path: Path) -> None:
    target, other = tmp_path / "dump", tmp_path / "backup"
    dump(live, target, 1, settings())
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 1234, 4321)
    owner = target.stat()
    os.link(target, other)
    dump(live, target, 2, settings())
    now = target.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (owner.st_mode, owner.st_uid, owner.st_gid)
    assert holds(target, 2) and holds(other, 1)


def test_a_torn_dump_does_not_take_the_name_of_a_consistent_one(
    live: LiveDump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "dump"
    dump(live, target, 1, settings())
    with monkeypatch.context() as patch:
        torn(patch)
        assert dump(live, target, 2, settings()) == "torn"
        assert "the dump is torn, and" in str(live.failure)
        assert f"the new dump is {target}.incomplete" in str(live.failure)
        assert holds(target, 1)
        for place in (f"{target}.incomplete", target):
            assert dump(live, target, 3, settings(force=place is target)) == "torn"
            with open_dump(place) as found:
                assert found.verdict == "torn"
    assert set(listing(tmp_path)) == {"dump"}
    assert dump(live, target, 4, settings()) == "consistent"
    assert holds(target, 4)


@pytest.mark.parametrize("format", ["elf", "raw"])
def test_a_kill_between_the_two_names(
    live: LiveDump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """The memory has its name and the sidecar not yet, while the last dump's is still there: most
    of the memory is the same, so that checksums do not tell them apart."""
    target = tmp_path / "dump"
    dump(live, target, 1, settings("raw"))
    live.machine.arena.live[:] = 1
    live.machine.arena.live[-1] = 2
    real = Folder.replace

    def replace(self: Folder, old: str, new: str) -> None:
        if new == "dump.ldfs":
            raise refused(errno.EIO)
        real(self, old, new)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "replace", replace)
        live.init(target, settings("raw"))
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
        assert f"cannot rename {target}.incomplete.ldfs to {target}.ldfs: " in str(live.failure)
        live.release()
    assert set(listing(tmp_path)) == {"dump", "dump.ldfs", "dump.incomplete.ldfs"}
    for _ in range(2):  # also when the next dump is broken off
        with open_dump(target) as found:
            assert found.verdict == "consistent" and prove_dump(found).ok
            assert found.read_arena(SIZE - 2, 2) == b"\x01\x02"
        break_off(live, target, settings(format))
    assert "dump.incomplete" in listing(tmp_path)
    assert dump(live, target, 3, settings(format)) == "consistent"
    assert holds(target, 3)
    assert set(listing(tmp_path)) == ({"dump", "dump.ldfs"} if format == "raw" else {"dump"})


def test_a_name_that_cannot_be_given(
    live: LiveDump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dump is whole, and says where. The next one does not write over it unasked."""
    target = tmp_path / "dump"

    def replace(self: Folder, old: str, new: str) -> None:
        raise refused(errno.EROFS)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "replace", replace)
        assert dump(live, target, 1, settings()) == "consistent"
        assert f"cannot rename {target}.incomplete to {target}: " in str(live.failure)
    assert holds(f"{target}.incomplete", 1)
    with pytest.raises(TargetError, match="incomplete: it holds a consistent dump") as caught:
        live.init(target, settings())
    assert caught.value.errno == errno.EEXIST
    assert holds(f"{target}.incomplete", 1)
    assert dump(live, target, 2, settings(force=True)) == "consistent"
    assert holds(target, 2)


def test_what_was_put_in_its_place_meanwhile_stays(live: LiveDump, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    live.init(target, settings())
    live.start()
    target.write_text("not ours\n")
    live.sweep()
    assert live.finish(DEADLINE_S) == "consistent"
    assert f"{target} became another file" in str(live.failure)
    live.release()
    assert target.read_text() == "not ours\n"
    assert holds(f"{target}.incomplete", 1)


def test_a_foreign_file_of_the_unfinished_name_stays(live: LiveDump, tmp_path: Path) -> None:
    (tmp_path / "dump.incomplete").write_text("a letter\n")
    with pytest.raises(TargetError, match="not empty and not a dump"):
        live.init(tmp_path / "dump", settings())
    assert (tmp_path / "dump.incomplete").read_text() == "a letter\n"


def test_two_dumps_at_once(live: LiveDump, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    with Arena(SIZE) as arena, LiveDump(arena) as other:
        for path in ("first", target):
            dump(live, target, 1, settings())
            live.init(target, settings())
            with pytest.raises(TargetError, match="another dump writes to it") as caught:
                other.init(target, settings())
            assert caught.value.errno == errno.EBUSY
            live.start()
            live.sweep()
            assert live.finish(DEADLINE_S) == "consistent", path
            live.release()
    assert holds(target, 1)


# ----------------------------------------------------------------------------- in place


def test_an_open_file_behind_proc_is_written_in_place(live: LiveDump, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    target.touch()
    fd = os.open(target, os.O_RDWR)
    try:
        path = f"/proc/self/fd/{fd}"
        dump(live, path, 1, settings())
        assert os.path.samestat(os.fstat(fd), target.stat())
        with pytest.raises(TargetError, match=f"{path}: it holds a consistent dump"):
            live.init(path, settings())
        assert holds(target, 1)
        break_off(live, path, settings(force=True))
        with open_dump(target) as found:
            assert found.verdict == "incomplete"
        dump(live, path, 2, settings())
        assert holds(target, 2)
    finally:
        os.close(fd)
    assert set(listing(tmp_path)) == {"dump"}


@pytest.mark.parametrize("how", ["no right", "sticky"])
def test_where_no_name_can_be_given_it_is_written_in_place(
    live: LiveDump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """In a folder that the user may not write, or where the sticky bit keeps another's name."""

    def make(self: Folder, name: str, like: object) -> int:
        raise refused(errno.EACCES)

    target = tmp_path / "dump"
    dump(live, target, 1, settings())
    inode = target.stat().st_ino
    if how == "sticky":
        monkeypatch.setattr(Folder, "keeps", lambda self, name: True)
    else:
        monkeypatch.setattr(Folder, "make", make)
    with pytest.raises(TargetError, match="it holds a consistent dump, which would be lost"):
        live.init(target, settings())
    assert holds(target, 1)
    dump(live, target, 2, settings(force=True))
    assert holds(target, 2)
    assert target.stat().st_ino == inode
    assert set(listing(tmp_path)) == {"dump"}


@as_root
def test_who_may_replace_what_in_a_sticky_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o1777 if folder == tmp_path else 0o755)
    (tmp_path / "roots").touch()
    (tmp_path / "own").touch()
    os.chown(tmp_path / "own", 65534, 65534)
    folder = Folder(os.open(tmp_path, os.O_RDONLY))
    try:
        assert not folder.keeps("roots")
        os.seteuid(65534)
        assert folder.keeps("roots")
        assert not folder.keeps("own") and not folder.keeps("nothing")
    finally:
        os.seteuid(0)
        folder.close()


@as_root
def test_a_file_that_is_a_mount_is_written_in_place(live: LiveDump, tmp_path: Path) -> None:
    """As containers are given single files."""
    target, behind = tmp_path / "dump", tmp_path / "elsewhere"
    for path in (target, behind):
        path.touch()
    subprocess.run(["mount", "--bind", behind, target], check=True, timeout=300)
    try:
        assert dump(live, target, 1, settings()) == "consistent"
        assert live.failure is None
    finally:
        subprocess.run(["umount", target], check=True, timeout=300)
    assert holds(behind, 1)
    assert set(listing(tmp_path)) == {"dump", "elsewhere"}


# --------------------------------------------------------------------- what START would refuse


@pytest.mark.parametrize("format", FORMATS)
def test_what_start_refuses_is_asked_before_the_target_is_touched(
    live: LiveDump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    target = tmp_path / "dump"
    dump(live, target, 1, settings(format))
    before = listing(tmp_path)
    asked = []

    def check_start(backend: str) -> None:
        asked.append(listing(tmp_path) == before)
        raise MachineError("cannot dump the guest: it is suspended", errno=errno.EBUSY)

    monkeypatch.setattr(live.machine, "check_start", check_start, raising=False)
    for path in (target, tmp_path / "new"):
        with pytest.raises(MachineError, match="it is suspended"):
            live.init(path, settings(format))
        with pytest.raises(MachineError, match="it is suspended"):
            live.expect_init(DumpSettings())
    assert asked == [True] * 4
    assert listing(tmp_path) == before
    monkeypatch.undo()
    assert dump(live, target, 2, settings(format)) == "consistent"
