# SPDX-License-Identifier: GPL-2.0-or-later
"""A name that may not be on the disk: a caller that is told that a dump has one is told
that, too."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.rights.folder import Folder

MIB = 1 << 20


def refuse_folders(monkeypatch: pytest.MonkeyPatch, number: int, after: str = "") -> None:
    """fsync of a folder fails; `after`: once a file of that name is there."""
    real = os.fsync

    def fsync(fd: int) -> None:
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        if folder and (not after or after in os.listdir(fd)):
            raise OSError(number, os.strerror(number))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_name_that_could_not_be_synced_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dump"
    with Arena(MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        refuse_folders(monkeypatch, errno.EIO, "dump")
        assert live.save(path) == "consistent", "what is sealed is on the disk"
        assert live.failure == (
            f"cannot sync the folder of {path}: Input/output error "
            "(the dump is whole there, but may lose that name if the power fails)"
        )
        assert live.target_path == str(path)
    with open_dump(path) as dump:
        assert dump.verdict == "consistent"


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSUP])
def test_where_nobody_can_ask_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_folders(monkeypatch, number)
    with Arena(MIB) as arena, LiveDump(arena) as live:
        assert live.save(tmp_path / "dump") == "consistent"
        assert live.failure is None


def test_a_file_whose_name_cannot_be_synced_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_folders(monkeypatch, errno.EIO)
    folder = Folder(os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(OSError) as caught:
        folder.make("file", None)
    folder.close()
    assert caught.value.errno == errno.EIO and not list(tmp_path.iterdir())
