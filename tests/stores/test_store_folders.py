# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder that others can write: links lead nowhere, no read is endless, and files stay the
user's or the group's. And file systems whose locks do not hold for every computer."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.dumpfile import verify_store
from livedumpfs.errors import LivedumpError, TargetError
from livedumpfs.formats import Plan
from livedumpfs.hosts.mounted import mounts_at
from livedumpfs.stores import Store, collect, create_store, file_locks, list_dumps, open_store
from livedumpfs.stores.chunks import CastrChunks
from livedumpfs.stores.folder_objects import FolderObjects
from tests.fixtures.small_stores import chunk_file, keep_file
from tests.stores.stored_dumps import CHUNK, MACHINE, MEMORY

WriteDump = Callable[..., Plan]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another group needs root")
DEADLINE = 60.0


@pytest.fixture
def dump(tmp_path: Path, write_dump: WriteDump) -> Path:
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE)
    return tmp_path / "dump"


@pytest.fixture
def store(tmp_path: Path, dump: Path) -> Iterator[Store]:
    """With the dumps `a` and `b`."""
    with create_store(str(tmp_path / "s")) as made:
        keep_file(made, dump, "a")
        keep_file(made, dump, "b")
        yield made


# ---------------------------------------------------------------- links


def test_a_lock_that_is_a_link(store: Store, tmp_path: Path) -> None:
    """Nothing is made outside, and no mode is changed."""
    folder = Path(store.url)
    folder.chmod(0o2770)
    victim, new = tmp_path / "victim", tmp_path / "new"
    victim.write_text("x")
    victim.chmod(0o4755)
    for goal in (victim, new):
        (folder / "lock").unlink(missing_ok=True)
        (folder / "lock").symlink_to(goal)
        with open_store(store.url) as again, pytest.raises(TargetError, match="lock"), again.lock():
            pass
    assert stat.S_IMODE(victim.stat().st_mode) == 0o4755 and not new.exists()
    (folder / "lock").unlink()
    os.mkfifo(folder / "lock")
    with open_store(store.url) as again, pytest.raises(TargetError, match="lock"), again.lock():
        pass


def test_another_stores_chunks_behind_a_link(store: Store, tmp_path: Path, dump: Path) -> None:
    chunks = sorted(Path(store.url, "default.castr").rglob("*.cacnk"))
    with create_store(str(tmp_path / "other")) as other:
        Path(other.url, "default.castr").symlink_to(Path(store.url, "default.castr"))
        with pytest.raises(TargetError, match=r"other/default\.castr is a link to a folder"):
            collect(other)
        with pytest.raises(TargetError, match="links in a store are not followed"):
            other.chunks.put(bytes(32), b"x")
        with pytest.raises(TargetError, match="links in a store are not followed"):
            other.chunks.delete([store.index("a").id(0)])
    assert sorted(Path(store.url, "default.castr").rglob("*.cacnk")) == chunks


@pytest.mark.parametrize("there", [True, False])
def test_indexes_behind_a_link_are_not_ignored(store: Store, tmp_path: Path, there: bool) -> None:
    """Also while the disk that the link leads to is not mounted."""
    (tmp_path / "old").mkdir()
    for name in ("a.caibx", "b.caibx"):
        Path(store.url, name).rename(tmp_path / "old" / name)
    Path(store.url, "old").symlink_to(tmp_path / "old" if there else tmp_path / "nowhere")
    before = dict(store.chunks.every())
    with pytest.raises(TargetError, match="is a link to a folder"):
        collect(store)
    assert dict(store.chunks.every()) == before
    Path(store.url, "old").unlink()
    Path(store.url, "README").symlink_to(tmp_path / "dump")  # harmless
    assert collect(store, dry_run=True).chunks == len(before)


def test_an_index_that_is_a_link_ends_gc(store: Store, tmp_path: Path) -> None:
    Path(store.url, "a.caibx").rename(tmp_path / "a.caibx")
    Path(store.url, "a.caibx").symlink_to(tmp_path / "a.caibx")
    before = dict(store.chunks.every())
    with pytest.raises(LivedumpError, match=r"a\.caibx"):
        collect(store)
    assert dict(store.chunks.every()) == before


def test_a_link_in_the_place_of_a_chunk_is_replaced(
    store: Store, dump: Path, tmp_path: Path
) -> None:
    identity = store.index("a").id(0)
    chunk = chunk_file(store, identity)
    chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    assert not store.chunks.has(identity)
    keep_file(store, dump, "c")
    assert not chunk.is_symlink() and store.chunks.get(identity)


# ---------------------------------------------------------------- whose they are


@pytest.mark.parametrize("umask", [0o002, 0])
def test_a_store_that_is_made_is_the_users_alone(tmp_path: Path, dump: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with create_store(str(tmp_path / "s")) as store:
            keep_file(store, dump, "a")
    finally:
        os.umask(before)
    every = [tmp_path / "s", *(tmp_path / "s").rglob("*")]
    assert not any(path.stat().st_mode & 0o077 for path in every)


@needs_root
def test_files_are_of_the_folders_group_without_its_bit(tmp_path: Path, dump: Path) -> None:
    (tmp_path / "s").mkdir()
    os.chown(tmp_path / "s", 0, 12345)
    (tmp_path / "s").chmod(0o770)
    with create_store(str(tmp_path / "s")) as store:
        keep_file(store, dump, "a")
    found = [path.stat() for path in (tmp_path / "s").rglob("*")]
    assert {one.st_gid for one in found} == {12345}
    modes = {(stat.S_ISDIR(one.st_mode), stat.S_IMODE(one.st_mode)) for one in found}
    assert modes == {(True, 0o2770), (False, 0o660)}


# ---------------------------------------------------------------- what is no file


def in_place_of_a_record(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "deep":
        path.write_text("[" * 200_000)
    else:
        path.touch()
        os.truncate(path, 3 << 30)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "large", "deep"])
@pytest.mark.parametrize("name", ["a.json", "a.caibx"])
def test_one_dump_is_strange_and_the_others_are_listed(store: Store, kind: str, name: str) -> None:
    """Each as another may leave it. Nothing waits, and nothing is read without an end."""
    in_place_of_a_record(Path(store.url, name), kind)
    if (kind, name) == ("folder", "a.caibx"):  # no index, so no dump
        return
    found = {one.name: one.problem for one in list_dumps(store)}
    assert found.keys() == {"a", "b"} and not found["b"]
    if name == "a.json":
        assert name in found["a"]
    assert any(one.startswith("a: ") for one in verify_store(store).problems)


def test_dumps_that_go_while_they_are_listed(store: Store) -> None:
    names = store.objects.names

    def then_gone(prefix: str, *, deep: bool = True) -> Iterator[object]:
        yield from list(names(prefix, deep=deep))
        store.remove("a")

    store.objects.names = then_gone  # type: ignore[method-assign, assignment]
    assert [one.name for one in list_dumps(store)] == ["b"]


# ---------------------------------------------------------------- locks


@pytest.mark.parametrize(
    ("kind", "options", "scope"),
    [
        ("ext4", "rw", "local"),
        ("tmpfs", "rw", "local"),
        ("overlay", "rw", "local"),
        ("fuseblk", "rw", "local"),
        ("nfs4", "rw,vers=4.2,local_lock=none", "shared"),
        ("nfs", "rw,vers=3,local_lock=none", "shared"),
        ("nfs", "rw,vers=3,nolock,local_lock=all", "unknown"),
        ("nfs", "rw,vers=3,local_lock=flock", "unknown"),
        ("nfs", "rw,vers=3,local_lock=posix", "shared"),
        ("ceph", "rw", "shared"),
        ("lustre", "rw,flock", "shared"),
        ("lustre", "rw,localflock", "unknown"),
        ("fuse.sshfs", "rw", "unknown"),
        ("fuse", "rw", "unknown"),
        ("9p", "rw", "unknown"),
        ("cifs", "rw", "unknown"),
        ("virtiofs", "rw", "unknown"),
        ("new", "rw", "unknown"),
    ],
)
def test_where_locks_hold(kind: str, options: str, scope: str) -> None:
    with_device = frozenset(("ext4", "xfs", "fuseblk"))
    assert file_locks.scope_of(kind, frozenset(options.split(",")), with_device) == scope


PASSES_ON = Path(__file__).parents[1] / "fixtures" / "programs" / "passing_fs.py"


@pytest.fixture
def passed_on(store: Store, tmp_path: Path) -> Iterator[Path]:
    """The same store through a file system that could be on any computer."""
    where = tmp_path / "mnt"
    where.mkdir()
    command = [sys.executable, str(PASSES_ON), store.url, str(where)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        end = time.monotonic() + DEADLINE
        while not mounts_at(str(where)):
            assert server.poll() is None and time.monotonic() < end, "it is not mounted"
            time.sleep(0.05)
        try:
            yield where
        finally:
            subprocess.run(["fusermount", "-u", str(where)], check=False, timeout=DEADLINE)
            server.terminate()


@needs_root
@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="no FUSE")
def test_a_store_where_locks_may_not_hold_can_be_read_alone(passed_on: Path) -> None:
    with open_store(str(passed_on)) as store:
        assert [one.name for one in list_dumps(store)] == ["a", "b"]
        assert verify_store(store).problems == []
        for alone in (True, False):
            with (
                pytest.raises(TargetError, match="may not hold for other computers") as caught,
                store.lock(alone=alone),
            ):
                pass
            assert caught.value.errno == errno.ENOTSUP and "store:s3://" in str(caught.value)
        with pytest.raises(TargetError, match="may not hold"):
            create_store(str(passed_on / "new"))


@pytest.mark.parametrize("seen", [True, False])
def test_chunks_that_went_while_a_dump_needed_them(
    store: Store, dump: Path, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    """The lock of a network file system may be lost without a word."""
    identity = store.index("a").id(0)
    monkeypatch.setattr(FolderObjects, "seen_by_others", seen)
    with open_store(store.url) as again:
        assert isinstance(again.chunks, CastrChunks)
        flush = again.chunks.flush

        def flush_then_gone() -> None:
            flush()
            chunk_file(store, identity).unlink()

        monkeypatch.setattr(again.chunks, "flush", flush_then_gone)
        if seen:
            with pytest.raises(TargetError, match="was removed while the dump needed it"):
                keep_file(again, dump, "c")
        else:  # there only the lock counts, and this took none
            keep_file(again, dump, "c")
        assert again.names() == ["a", "b", *(() if seen else ("c",))]
