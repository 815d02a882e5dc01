# SPDX-License-Identifier: GPL-2.0-or-later
"""What gc removes, and what it must not touch."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.dumpfile import verify_store
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.formats import Plan
from livedumpfs.stores import Store, collect, create_store, list_dumps, totals
from livedumpfs.stores.folder_objects import FolderObjects
from tests.fixtures.small_stores import chunk_file, keep_file
from tests.fixtures.written_dumps import DumpWriter
from tests.stores.stored_dumps import CHANGED, CHUNK, MACHINE, MEMORY, OTHER, PAGE

ONLY_OTHERS = len({page * PAGE // CHUNK for page in CHANGED}) + 1
"""Chunks of the second dump that the first has not: those of changed pages, and its head."""


@pytest.fixture
def store(tmp_path: Path, write_dump: DumpWriter) -> Iterator[Store]:
    """Two dumps, `a` and `b`."""
    with create_store(str(tmp_path / "store")) as found:
        for name, memory in (("a", MEMORY), ("b", OTHER)):
            plan: Plan = write_dump(tmp_path / name, memory, granule=CHUNK, machine=MACHINE)
            assert plan.data_offset % CHUNK == 0
            keep_file(found, tmp_path / name, name)
        yield found


def files(store: Store) -> set[str]:
    root = Path(store.url)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_store_without_waste_stays_as_it_is(store: Store) -> None:
    before = files(store)
    found = collect(store)
    assert (found.chunks, found.chunk_bytes, found.records, found.unfinished) == (0, 0, 0, 0)
    assert found.missing == 0 and found.kept == totals(store, list_dumps(store)).chunks
    assert files(store) == before


def test_chunks_of_a_forgotten_dump_go(store: Store, tmp_path: Path) -> None:
    sizes = dict(store.chunks.every())
    alone = store.index("b").unique() - store.index("a").unique()
    assert 0 < len(alone) <= 2 * ONLY_OTHERS
    store.remove("b")
    dry = collect(store, dry_run=True)
    assert (dry.chunks, dry.chunk_bytes) == (len(alone), sum(sizes[one] for one in alone))
    assert dict(store.chunks.every()) == sizes
    seen: list[tuple[int, int]] = []
    found = collect(store, on_removed=lambda done, total: seen.append((done, total)))
    assert found == dry and seen[-1] == (dry.chunk_bytes, dry.chunk_bytes)
    assert {one for one, _ in store.chunks.every()} == store.index("a").unique()
    report = verify_store(store)
    assert report.problems == [] and [one.name for one in report.dumps] == ["a"]


def test_what_a_killed_dump_leaves_goes(store: Store, tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(bytes([7]) * 5 * CHUNK + bytes([8]) * CHUNK)
    keep_file(store, tmp_path / "c", "c", publish=False)
    record = (Path(store.url) / "a.json").read_bytes()
    (Path(store.url) / "never.json").write_bytes(record)
    (Path(store.url) / "notes.json").write_text("[]")  # another's file
    folder = chunk_file(store, store.index("a").id(0)).parent
    (folder / "x.cacnk.1234-5.unfinished").write_bytes(b"part")
    (Path(store.url) / "d.caibx.1234-6.unfinished").write_bytes(b"part")
    found = collect(store)
    assert (found.chunks, found.records, found.unfinished) == (2, 1, 2)
    assert {"a.json", "b.json", "notes.json"} <= files(store)
    assert not any("unfinished" in name or "never" in name for name in files(store))
    assert verify_store(store).problems == []


def test_an_index_that_cannot_be_read_stops_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(bytes([7]) * CHUNK)
    keep_file(store, tmp_path / "c", "c", publish=False)
    path = Path(store.url) / "b.caibx"
    good = path.read_bytes()
    before = files(store)
    for bad in (good[:-1], b"", good[:100] + b"\xff" * 16 + good[116:-40]):
        path.write_bytes(bad)
        with pytest.raises(InvalidDump, match=r"nothing was removed from .*which chunks b.caibx"):
            collect(store)
        assert files(store) == before
    store.remove("b")  # the way that the message names
    assert collect(store).chunks > 1


def test_indexes_of_casync_count(store: Store) -> None:
    """Archives of folders, and indexes in folders below."""
    root = Path(store.url)
    (root / "below").mkdir()
    (root / "b.caibx").rename(root / "below" / "b.caibx")
    assert collect(store).chunks == 0
    (root / "below" / "b.caibx").rename(root / "b.caidx")
    assert collect(store).chunks == 0
    (root / "b.caidx").unlink()
    assert collect(store).chunks > 0


def test_it_waits_for_no_dump(store: Store) -> None:
    """A dump that is under way has chunks that no index names yet."""
    with store.lock():
        with pytest.raises(TargetError, match="is in use by a dump") as caught:
            collect(store)
        assert caught.value.errno == errno.EBUSY
        with pytest.raises(TargetError, match="is in use by a dump"):
            collect(store, wait_s=0.2)
        with store.lock():  # another dump
            pass
        verify_store(store)
    collect(store)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_verify_of_a_store_that_can_only_be_read(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """There it needs no lock. Others do."""

    def refuse(objects: FolderObjects) -> int:
        raise OSError(code, objects.path)

    monkeypatch.setattr(FolderObjects, "_open_lock", refuse)
    assert verify_store(store).problems == []
    with pytest.raises(TargetError) as caught:
        collect(store)
    assert caught.value.errno == code


def test_missing_chunks_are_counted(store: Store) -> None:
    index = store.index("a")
    chunk_file(store, index.id(len(index) - 1)).unlink()
    assert collect(store).missing == 1


def test_verify_names_what_is_lost(store: Store) -> None:
    """A chunk of both dumps, one of one dump, and a damaged record."""
    index = store.index("a")
    memory = len(index) - len(MEMORY) // CHUNK
    chunk_file(store, index.id(memory + 2)).unlink()
    other = store.index("b")
    chunk_file(store, other.id(memory + 15)).write_bytes(b"\x28\xb5\x2f\xfdnonsense")
    a, b = verify_store(store).dumps
    assert a.pages == [(32, 48)] and b.pages == [(32, 48), (240, 256)]
    assert a.verdict == b.verdict == "consistent"
    assert a.problems == ["1 chunk is damaged or missing: pages 0x20-0x2f are lost"]
    assert b.problems == ["2 chunks are damaged or missing: pages 0x20-0x2f, 0xf0-0xff are lost"]
    assert set(b.wrong) == {other.id(memory + 2), other.id(memory + 15)}
    (Path(store.url) / "a.json").write_text("{}")
    [problem, _] = [one for one in verify_store(store).problems if one.startswith("a: ")]
    assert "record of the dump" in problem


def test_a_record_that_says_another_thing(store: Store) -> None:
    path = Path(store.url) / "a.json"
    text = path.read_text()
    path.write_text(text.replace('"consistent"', '"torn"'))
    assert verify_store(store).problems == ["a: its record says torn, the dump is consistent"]
    path.write_bytes((Path(store.url) / "b.json").read_bytes())
    assert verify_store(store).problems == ["a: its record is of another dump"]
