# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a store: whose they are, and what of them counts."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.errors import TargetError
from livedumpfs.stores import Store, create_store, open_store
from livedumpfs.stores.folder_objects import FolderObjects
from tests.fixtures.small_stores import keep_file

CHUNK = 64 << 10


@pytest.fixture(params=[0, 0o077], ids=["umask 0", "umask 077"])
def odd_umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> set[tuple[str, int]]:
    """Kind and mode of all below."""
    found = [path.lstat().st_mode for path in folder.rglob("*")]
    return {("folder" if stat.S_ISDIR(one) else "file", stat.S_IMODE(one)) for one in found}


def filled(folder: Path, mode: int, file: Path) -> Store:
    folder.mkdir()
    folder.chmod(mode)
    store = create_store(str(folder))
    with store.lock():
        keep_file(store, file, "one")
    return store


@pytest.mark.usefixtures("odd_umask")
def test_files_are_the_users_alone(tmp_path: Path) -> None:
    """Whatever the mode of a folder that was there."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3 * CHUNK)
    file.chmod(0o600)
    filled(tmp_path / "s", 0o755, file).close()
    assert modes(tmp_path / "s") <= {("file", 0o600), ("folder", 0o700)}


def test_files_of_a_group(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3 * CHUNK)
    filled(tmp_path / "s", 0o2770, tmp_path / "file").close()
    assert modes(tmp_path / "s") == {("file", 0o660), ("folder", 0o2770)}


def test_an_empty_file_is_no_chunk(tmp_path: Path) -> None:
    """As a power loss may leave one. The next dump writes it."""
    data = b"x" * 100
    (tmp_path / "file").write_bytes(data)
    store = filled(tmp_path / "s", 0o700, tmp_path / "file")
    with store:
        identity = store.index("one").id(0)
        [chunk] = (tmp_path / "s").rglob("*.cacnk")
        chunk.write_bytes(b"")
        assert not store.chunks.has(identity)
        keep_file(store, tmp_path / "file", "two")
        assert store.chunks.get(identity) == data


def test_two_that_put_the_same_object(tmp_path: Path) -> None:
    """Of one process too, and beside what a killed one has left under any name."""
    first, second = FolderObjects(str(tmp_path)), FolderObjects(str(tmp_path))
    for number in range(3):
        first.put("a/b", b"first")
        (tmp_path / f"a/b.{os.getpid()}-{number}.unfinished").write_bytes(b"")
        second.put("a/b", b"second")
        assert first.get("a/b") == b"second"
    assert [one.name for one in first.names("")] == ["a/b"]
    assert first.clean() == 3
    first.close()
    second.close()


def test_names_of_one_folder(tmp_path: Path) -> None:
    objects = FolderObjects(str(tmp_path))
    for name in ("x", "a/y", "a/b/z"):
        objects.put(name, b"1")
    assert {one.name for one in objects.names("")} == {"x", "a/y", "a/b/z"}
    assert {one.name for one in objects.names("", deep=False)} == {"x"}
    assert {one.name for one in objects.names("a/", deep=False)} == {"a/y"}
    assert list(objects.names("nothing/")) == []
    objects.close()


def test_a_name_is_given_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    with filled(tmp_path / "s", 0o700, tmp_path / "file") as store:
        before = (tmp_path / "s/one.caibx").read_bytes()
        with pytest.raises(TargetError, match="has a dump one already") as caught:
            keep_file(store, tmp_path / "file", "one")
        assert caught.value.errno == errno.EEXIST
        assert (tmp_path / "s/one.caibx").read_bytes() == before


def test_a_folder_with_something_in_it_becomes_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(TargetError, match="not empty"):
        create_store(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(TargetError) as caught:
        open_store(str(tmp_path))
    assert caught.value.errno == errno.ENOENT
