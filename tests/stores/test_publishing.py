# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump is published or reported as failed, never both; and a name means one dump, or none."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs.cli.main import main
from livedumpfs.errors import TargetError, UsageError
from livedumpfs.formats import Plan
from livedumpfs.stores import Store, create_store, takes_dumps
from tests.fixtures.small_stores import BEGAN, HOUR, keep_file
from tests.fixtures.store_streams import nothing_published

WriteDump = Callable[..., Plan]


@pytest.mark.parametrize("number", range(4))
def test_whatever_fails_there_is_no_dump(
    store: Store, dump: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record, the index, the last sync, and the look at the chunks: one fails."""
    objects, seen = store.objects, [0]

    def failing(real: Callable[..., None]) -> Callable[..., None]:
        def step(*args: object) -> None:
            if not str(args[:1]).startswith("('default"):  # chunks are put before
                seen[0] += 1
                if seen[0] == number + 2:  # the first is the sync of the chunks
                    raise TargetError("no more", errno=errno.EIO)
            real(*args)

        return step

    monkeypatch.setattr(objects, "put", failing(objects.put))
    monkeypatch.setattr(objects, "sync", failing(objects.sync))
    monkeypatch.setattr(store.chunks, "expect_kept", failing(store.chunks.expect_kept))
    with pytest.raises(TargetError, match="no more"):
        keep_file(store, dump, "a")
    assert seen[0] == number + 2 and nothing_published(store)


def test_what_failed_first_is_told(
    store: Store, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TargetError("the cause", errno=errno.EIO)

    def fail_later(*_: object) -> None:
        raise TargetError("a consequence", errno=errno.EIO)

    monkeypatch.setattr(store.chunks, "expect_kept", fail)
    monkeypatch.setattr(store.objects, "delete", fail_later)
    with pytest.raises(TargetError, match="the cause"):
        keep_file(store, dump, "a")


def test_a_dump_that_is_called_latest(store: Store, dump: Path) -> None:
    keep_file(store, dump, "20261129T153400Z-00000000", instant_ns=BEGAN + HOUR)
    assert store.resolve("latest") == "20261129T153400Z-00000000"
    keep_file(store, dump, "latest")
    assert store.resolve("latest") == "latest"


def test_no_place_with_a_hash_becomes_a_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="# is before a dump's name"):
        create_store(f"store:{tmp_path}/s#x")
    assert not list(tmp_path.iterdir())


def test_a_new_dump_is_not_named_by_its_user(
    store: Store, dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    for target in (f"{store.url}#x", f"store:{store.url}#x", f"store:{tmp_path}/new#x"):
        with pytest.raises(UsageError, match="a store gives its dumps their names"):
            takes_dumps(target)
        for words in (["dump", target], ["convert", str(dump), target]):
            assert main(words) == 2
            assert "a store gives its dumps their names" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert not takes_dumps(f"{tmp_path}/file#x") and takes_dumps(store.url)
