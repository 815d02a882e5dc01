# SPDX-License-Identifier: GPL-2.0-or-later
"""A new file goes with whatever ends its making, at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.dumpfile import NewFile, destination
from tests.fixtures.open_files import no_file_stays_open


class Told(BaseException):
    """By the handler of a signal."""


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    def tell(*_: object) -> None:
        raise Told

    before = signal.signal(signal.SIGUSR1, tell)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_once_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the file and the object that would take it away."""
    path, real, made = tmp_path / "new", destination._make, []

    def make(name: str) -> int:
        fd = real(name)
        made.append(path.exists())
        os.kill(os.getpid(), signal.SIGUSR1)
        return fd

    monkeypatch.setattr(destination, "_make", make)
    with no_file_stays_open(), pytest.raises(Told):
        NewFile(str(path))
    assert made == [True] and not path.exists()


def test_a_signal_before_a_with_has_it(tmp_path: Path) -> None:
    path = tmp_path / "new"

    def interrupted() -> NewFile:
        made = NewFile(str(path))
        assert path.exists()
        os.kill(os.getpid(), signal.SIGUSR1)
        return made

    with pytest.raises(Told) as caught, interrupted():
        pass
    del caught  # its traceback has the file
    assert not path.exists()
