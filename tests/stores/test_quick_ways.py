# SPDX-License-Identifier: GPL-2.0-or-later
"""Many chunks that are looked at by one look each, and the quick way to a chunk's file: both find
and keep what the whole way does, and no link leads elsewhere."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.errors import TargetError
from livedumpfs.stores import Store, create_store, open_store
from livedumpfs.stores.folder_objects import FolderObjects
from tests.fixtures.small_stores import chunk_file, keep_file


@pytest.fixture
def kept(store: Store, dump: Path) -> Iterator[Store]:
    """With the dump `a`."""
    keep_file(store, dump, "a")
    yield store


def _a_link(chunk: Path, spare: Path) -> None:
    chunk.rename(spare)
    chunk.symlink_to(spare)


def _folder_a_link(chunk: Path, spare: Path) -> None:
    chunk.parent.rename(spare)
    chunk.parent.symlink_to(spare)


def _has_every(store: Store, every: set[bytes]) -> bool:
    """One that is opened may also be refused."""
    try:
        return store.chunks.has_every(every)
    except TargetError as error:
        assert error.errno == errno.ENOTDIR
        return False


def _no_folder(chunk: Path, spare: Path) -> None:
    chunk.parent.rename(spare)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda chunk, _: chunk.unlink(), id="missing"),
        pytest.param(lambda chunk, _: chunk.write_bytes(b""), id="empty"),
        pytest.param(_a_link, id="link"),
        pytest.param(_folder_a_link, id="folder-link"),
        pytest.param(_no_folder, id="no-folder"),
    ],
)
@pytest.mark.parametrize("others", [False, True], ids=["local", "seen-by-others"])
def test_many_chunks_are_there_only_if_each_is(
    kept: Store,
    tmp_path: Path,
    harm: Callable[[Path, Path], None],
    others: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FolderObjects, "seen_by_others", property(lambda _: others))
    with open_store(kept.url) as again:
        every = again.index("a").unique()
        assert len(every) > 2 and again.chunks.has_every(every) and again.chunks.has_every([])
        one = sorted(every)[1]
        harm(chunk_file(kept, one), tmp_path / "spare")
        assert not _has_every(again, every)
        assert again.chunks.has_every(every - {one})


def test_a_folder_of_chunks_that_is_a_link_is_refused(kept: Store, tmp_path: Path) -> None:
    every = kept.index("a").unique()
    Path(kept.url, "default.castr").rename(tmp_path / "spare")
    assert not kept.chunks.has_every(every)
    Path(kept.url, "default.castr").symlink_to(tmp_path / "spare")
    with pytest.raises(TargetError, match="links in a store are not followed"):
        kept.chunks.has_every(every)


def chunks_of_one_folder(store: Store) -> tuple[bytes, Path]:
    """The id of a chunk that is put, so that its folder is known; a folder elsewhere."""
    first = bytes(32)
    store.chunks.put(first, b"x")
    assert store.chunks.has(first) and not store.chunks.has(bytes(31) + b"\1")
    elsewhere = Path(store.url).with_name("elsewhere")
    elsewhere.mkdir()
    return bytes(31) + b"\1", elsewhere


def test_a_folder_of_a_group_that_becomes_a_link(tmp_path: Path) -> None:
    """It was known as a folder, and another of the group has put a link in its place."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o2770)
    with create_store(str(tmp_path / "s")) as store:
        other, elsewhere = chunks_of_one_folder(store)
        folder = chunk_file(store, other).parent
        folder.rename(tmp_path / "spare")
        folder.symlink_to(elsewhere)
        with pytest.raises(TargetError, match="links in a store are not followed"):
            store.chunks.put(other, b"y")
        with pytest.raises(TargetError, match="links in a store are not followed"):
            store.chunks.has(other)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("depth", [1, 2])
def test_a_folder_that_another_command_has_removed(tmp_path: Path, depth: int) -> None:
    """As `casync gc` does when it is empty: it is made again, also the one of them all."""
    with create_store(str(tmp_path / "s")) as store:
        other, elsewhere = chunks_of_one_folder(store)
        folder = chunk_file(store, other).parents[depth - 1]
        folder.rename(elsewhere / "gone")
        shutil.rmtree(elsewhere / "gone")
        assert not store.chunks.has(other)
        store.chunks.put(other, b"y")
        assert store.chunks.has(other) and chunk_file(store, other).stat().st_size


def test_chunks_that_are_moved_away_meanwhile(tmp_path: Path) -> None:
    """No dump is published whose chunks are elsewhere."""
    with create_store(str(tmp_path / "s")) as store:
        other, elsewhere = chunks_of_one_folder(store)
        folder = chunk_file(store, other).parents[1]
        folder.rename(elsewhere / "moved")
        store.chunks.put(other, b"y")
        with pytest.raises(TargetError, match=r"cannot write .*/default\.castr: Stale") as caught:
            store.chunks.flush()
        assert caught.value.errno == errno.ESTALE


def test_the_chunks_of_a_base_that_are_moved_away(kept: Store, tmp_path: Path) -> None:
    """After the look at them, and before the first one is put."""
    with open_store(kept.url) as again:
        assert again.chunks.has_every(again.index("a").unique())
        folder = Path(kept.url, "default.castr")
        folder.rename(tmp_path / "moved")
        folder.mkdir(mode=0o700)
        again.chunks.put(bytes(32), b"x")
        with pytest.raises(TargetError, match=r"cannot write .*/default\.castr: Stale"):
            again.chunks.flush()


def test_a_chunk_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Also of what is put the quick way, in a store that is this user's alone."""
    with create_store(str(tmp_path / "s")) as store:
        other, _ = chunks_of_one_folder(store)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))
            with pytest.raises(TargetError, match="File too large"):
                store.chunks.put(other, os.urandom(1 << 16))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        assert len(list(chunk_file(store, other).parent.iterdir())) == 1
        assert not store.chunks.has(other)


def test_a_closed_store_is_not_taken_for_another(tmp_path: Path) -> None:
    """A thread that hung comes back when the descriptors' numbers are those of another store."""
    with create_store(str(tmp_path / "s")) as store:
        other, _ = chunks_of_one_folder(store)
        objects = store.objects
        assert isinstance(objects, FolderObjects)
        way = objects._quick._seen[0][1]
    name = chunk_file(store, other).relative_to(store.url)
    with create_store(str(tmp_path / "another")) as another:
        another.chunks.put(bytes(32), b"x")
        another.chunks.put(bytes(32), b"x")
        with pytest.raises(TargetError, match="Bad file descriptor"):
            store.chunks.put(other, b"y")
        with pytest.raises(OSError, match="Bad file descriptor"):
            way.put(str(Path(*name.parts[1:])), ".unfinished", memoryview(b"y"))
        assert objects._quick.has(str(name)) is None
        assert [one for one, _ in another.chunks.every()] == [bytes(32)]
