# SPDX-License-Identifier: GPL-2.0-or-later
"""Attributes, the tree of a mount, and what small files say, without a mount."""

from __future__ import annotations

import stat
import time

import pytest

from livedumpfs.mount import contents
from livedumpfs.mount.attributes import Attributes, Tree, as_statfs, dump_numbers, numbered
from livedumpfs.mount.contents import Contents


@pytest.mark.parametrize(
    ("stored", "blocks"), [(0, 0), (1, 8), (4096, 8), (4097, 16), (1 << 40, 1 << 31)]
)
def test_blocks_are_whole_and_never_too_few(stored: int, blocks: int) -> None:
    one = Attributes(9, stat.S_IFREG | 0o400, 5, size=1 << 50, stored=stored).as_stat(1, 2)
    assert one["st_blocks"] == blocks and one["st_blocks"] * 512 >= stored
    assert (one["st_ino"], one["st_uid"], one["st_gid"], one["st_nlink"]) == (9, 1, 2, 1)
    assert one["st_mtime"] == one["st_ctime"] == one["st_atime"] == 5


def test_a_tree() -> None:
    tree = Tree(numbered(("a", "a/x", "a/b", "a/b/y", "f"), 2))
    assert [tree.is_directory(path) for path in ("", "a", "a/b", "a/x", "f")] == [1, 1, 1, 0, 0]
    for path in ("b", "a/y", "x", "a/"):
        with pytest.raises(FileNotFoundError):
            tree.is_directory(path)
    assert [tree.directory(path, 0o500, 0).links for path in ("", "a", "a/b")] == [3, 3, 2]
    assert tree.directory("a", 0o500, 7) == Attributes(2, stat.S_IFDIR | 0o500, 7, links=3)
    entries = {name: (one["st_ino"], one["st_mode"]) for name, one, _ in tree.entries("a")}
    assert entries == {
        ".": (2, stat.S_IFDIR), "..": (1, stat.S_IFDIR), "x": (3, stat.S_IFREG),
        "b": (4, stat.S_IFDIR),
    }  # fmt: skip
    assert [name for name, _, _ in tree.entries("")] == [".", "..", "a", "f"]


def test_statfs_has_no_room() -> None:
    found = as_statfs(5, 100)
    assert (found["f_blocks"], found["f_bfree"], found["f_files"], found["f_ffree"]) == (
        100, 0, 5, 0,
    )  # fmt: skip


def test_numbers_of_dumps_are_apart() -> None:
    """Of one host always, whatever the clock says; and none is one of the tree's own."""
    first = {dump_numbers(b"the same", number) for number in range(1, 65536)}
    assert len(first) == 65535
    assert all(number % 256 == 0 and 1 << 48 <= number < 1 << 53 for number in first)
    assert not first & {dump_numbers(b"another", number) for number in range(1, 65536)}


# ------------------------------------------------------------------------- contents


def test_what_was_counted_is_what_is_read_once() -> None:
    seen = Contents()
    seen.look("f", 1, lambda: b"abc")
    seen.look("f", 2, lambda: b"abcd")
    assert seen.known("f")[1] == 4
    assert (seen.take("f", 1), seen.take("f", 1)) == (b"abc", None)
    assert seen.take("f", 3) is None
    assert seen.take("f", 2) == b"abcd"


def test_what_was_counted_gets_old() -> None:
    now = [1000.0]
    seen = Contents(lambda: now[0])
    for late, found in ((contents.FRESH_S - 0.01, b"abc"), (contents.FRESH_S, None)):
        seen.look("f", 1, lambda: b"abc")
        now[0] += late
        assert seen.take("f", 1) == found
    seen.look("f", 1, lambda: b"abc")
    seen.forget()
    assert seen.take("f", 1) is None


def test_times_are_those_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes back gives no older time than there was."""
    seen, now = Contents(), [500]
    monkeypatch.setattr(contents.time, "time_ns", lambda: now[0])
    assert seen.known("f") == (0, 0)
    seen.look("f", 1, lambda: b"a", since=7)
    seen.look("g", 1, lambda: b"a")
    assert (seen.known("f"), seen.known("g")) == ((7, 1), (500, 1))
    now[0] = 600
    seen.look("f", 1, lambda: b"a", since=7)
    assert seen.known("f") == (7, 1)
    seen.look("f", 1, lambda: b"bb", since=7)
    assert seen.known("f") == (600, 2)
    now[0] = 100
    seen.look("f", 1, lambda: b"ccc", since=7)
    assert seen.known("f") == (601, 3)
    seen.look("f", 1, lambda: b"dddd", since=7, essence=lambda data: data[:0])
    before = seen.known("f")
    seen.look("f", 1, lambda: b"eeeee", since=7, essence=lambda data: data[:0])
    assert seen.known("f") == (before[0], 5), "the length of now, the time of before"
    seen.drop("f")
    assert seen.known("f") == (0, 0)


def test_no_more_is_kept_than_is_needed() -> None:
    seen = Contents()
    for task in range(10_000):
        seen.look("f", task, lambda: b"abc")
    kept = [task for task in range(10_000) if seen.take("f", task)]
    assert kept == list(range(10_000 - len(kept), 10_000)) and len(kept) < 1000
    assert time.time_ns() > seen.known("f")[0] > 0
