# SPDX-License-Identifier: GPL-2.0-or-later
"""Chunks in packs: what comes out is what went in, few objects, and nothing needed ever goes."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.stores import (
    DumpRecord,
    Index,
    Store,
    collect,
    create_store,
    open_store,
    pack_writer,
)
from livedumpfs.stores.chunk import chunk_id
from livedumpfs.stores.folder_objects import FolderObjects
from livedumpfs.stores.objects import Listed
from livedumpfs.stores.packs import PackChunks

SIZE = 64 << 10


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_writer, "PACK_SIZE", 1 << 20)


def put_all(store: Store, every: dict[bytes, bytes]) -> None:
    """Not flushed."""
    for identity, data in every.items():
        store.chunks.put(identity, data)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with create_store(str(tmp_path / "store"), layout="packs") as found:
        yield found


def chunks(count: int, seed: int = 1) -> dict[bytes, bytes]:
    """Half of each can be compressed."""
    source = random.Random(seed)
    every = [source.randbytes(SIZE // 2) + bytes(SIZE // 2) for _ in range(count)]
    return {chunk_id(one): one for one in every}


def publish(store: Store, name: str, ids: list[bytes]) -> None:
    table = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32)
    record = DumpRecord(dump_id="00" * 16, verdict="consistent")
    store.publish(name, Index.fixed(len(ids) * SIZE, SIZE, table), record)


def files(store: Store) -> list[str]:
    return sorted(one.name for one in store.objects.names("packs/"))


def test_what_went_in_comes_out(store: Store) -> None:
    every = chunks(100)
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda one: store.chunks.put(*one), every.items()))
        again = list(pool.map(lambda one: store.chunks.put(*one), every.items()))
    assert all(SIZE // 2 < size < SIZE // 2 + 200 for size in added) and not any(again)
    for identity, data in every.items():  # also of the pack that is not full
        assert store.chunks.get(identity) == data
    store.chunks.flush()
    assert len(files(store)) == 2 * -(-100 * (SIZE // 2) // (1 << 20))
    with open_store(store.url) as other:
        assert {identity for identity, _ in other.chunks.every()} == every.keys()
        order = random.Random(2).sample(list(every), 100)
        for identity in [*every, *order]:
            assert other.chunks.has(identity) and other.chunks.get(identity) == every[identity]
        assert not other.chunks.has(bytes(32))
        with pytest.raises(TargetError, match="has no chunk 0000") as caught:
            other.chunks.get(bytes(32))
        assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("threads", [1, 8])
def test_what_is_read_in_order_takes_few_requests(
    threads: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = chunks(320)
    put_all(store, every)
    store.chunks.flush()
    asked: list[int] = []
    real = FolderObjects.get_range

    def get_range(self: FolderObjects, name: str, start: int, length: int) -> bytes:
        asked.append(length)
        time.sleep(0.01)
        return real(self, name, start, length)

    monkeypatch.setattr(FolderObjects, "get_range", get_range)
    with open_store(store.url) as other, ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(other.chunks.get, every)) == list(every.values())
    packs = len(files(store)) // 2
    assert packs == 10 and len(asked) <= packs * (1 + threads), asked


def test_many_threads_that_put_the_same_keep_it_once(store: Store) -> None:
    every = chunks(20)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda one: store.chunks.put(*one), list(every.items()) * 8))
    assert sum(1 for size in done if size) == 20
    store.chunks.flush()
    assert len(list(store.chunks.every())) == 20


def test_gc_removes_packs_and_writes_those_anew_that_are_mostly_garbage(store: Store) -> None:
    every = chunks(96)  # three packs of 32
    ids = list(every)
    put_all(store, every)
    publish(store, "kept", [*ids[:2], *ids[32:60]])
    before = files(store)
    assert len(before) == 6
    found = collect(store)
    assert (found.kept, found.missing) == (30 + 4, 0)  # a pack that is mostly needed stays
    assert found.chunks == 30 + 32
    assert len(files(store)) == 4 and len(set(files(store)) & set(before)) == 2
    for identity in store.index("kept").unique():
        assert store.chunks.get(identity) == every[identity]
    with open_store(store.url) as other:
        assert {one for one, _ in other.chunks.every()} == {*ids[:2], *ids[32:64]}
    assert collect(store).chunks == 0


def test_what_killed_processes_left_goes(store: Store) -> None:
    every = chunks(40)
    put_all(store, every)
    publish(store, "kept", list(every))
    store.objects.put("packs/dead.pack", b"x" * 1000)
    store.objects.put("packs/gone.index", b"x")
    collect(store)
    assert all(name.count("dead") == name.count("gone") == 0 for name in files(store))
    assert [store.chunks.get(one) for one in every] == list(every.values())


def test_a_dump_that_gc_did_not_see_keeps_its_chunks(store: Store) -> None:
    """Its lock was lost: it is published between the look at the dumps and the removal."""
    every = chunks(40)
    ids = list(every)
    put_all(store, every)
    store.chunks.flush()
    with open_store(store.url) as gc, open_store(store.url) as dump:
        assert len(list(dump.chunks.every())) == 40
        assert isinstance(gc.chunks, PackChunks)
        publish(dump, "late", ids[:3])
        gc.chunks.delete(ids)  # which were garbage when it looked
    with open_store(store.url) as after:
        for identity in ids[:3]:
            assert after.chunks.get(identity) == every[identity]


def test_a_dump_whose_packs_have_gone_is_not_published(store: Store) -> None:
    every = chunks(3)
    ids = list(every)
    put_all(store, every)
    store.chunks.flush()
    with open_store(store.url) as dump, open_store(store.url) as gc:
        assert all(dump.chunks.has(identity) for identity in ids)
        gc.chunks.delete(ids)
        with pytest.raises(TargetError, match="during the dump") as caught:
            publish(dump, "late", ids)
        assert caught.value.errno == errno.ESTALE
        assert dump.names() == []


def test_who_reads_while_gc_writes_a_pack_anew_reads_on(store: Store) -> None:
    every = chunks(32)
    ids = list(every)
    put_all(store, every)
    publish(store, "kept", ids[:2])
    with open_store(store.url) as reader:
        assert reader.chunks.get(ids[0]) == every[ids[0]]
        collect(store)
        assert reader.chunks.get(ids[1]) == every[ids[1]]


def late_lists(store: Store, monkeypatch: pytest.MonkeyPatch, hidden: str = "") -> None:
    """gc runs while the store lists its packs for the first time: what it gets is from before,
    without the names that have `hidden` in them."""
    real, seen = store.objects.names, list[str]()

    def names(prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        found = list(real(prefix, deep=deep))
        if prefix == "packs/" and not seen:
            seen.append(prefix)
            with open_store(store.url) as gc:
                collect(gc)
            found = [one for one in found if not (hidden and hidden in one.name)]
        return iter(found)

    monkeypatch.setattr(store.objects, "names", names)


@pytest.mark.parametrize("hidden", ["", ".index"])
def test_who_opens_while_gc_writes_a_pack_anew_misses_nothing(
    hidden: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list has the old pack and not the new one, and the old one's index has gone; or a list
    that takes long has neither."""
    every = chunks(32)
    ids = list(every)
    put_all(store, every)
    publish(store, "kept", ids[:2])
    with open_store(store.url) as reader:
        late_lists(reader, monkeypatch, hidden)
        assert [reader.chunks.get(one) for one in ids[:2]] == [every[one] for one in ids[:2]]
        with pytest.raises(TargetError, match="has no chunk"):
            reader.chunks.get(ids[5])


def test_a_chunk_that_is_missing_is_looked_for_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each: a list of many packs takes many requests."""
    publish(store, "none", [])
    lists, real = list[str](), FolderObjects.names

    def names(self: FolderObjects, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        lists.append(prefix)
        return real(self, prefix, deep=deep)

    monkeypatch.setattr(FolderObjects, "names", names)
    for number in range(20):
        with pytest.raises(TargetError, match="has no chunk"):
            store.chunks.get(bytes([number]) * 32)
    assert len(lists) <= 2, lists


@pytest.mark.parametrize("how", ["damaged", "cut", "gone"])
def test_of_two_copies_the_good_one_is_read(how: str, store: Store) -> None:
    """Two dumps at once put the same chunks."""
    every = chunks(4)
    with open_store(store.url) as other:
        for one in (store, other):
            assert not any(one.chunks.has(identity) for identity in every)
        for one in (store, other):
            for identity, data in every.items():
                one.chunks.put(identity, data)
            one.chunks.flush()
    packs = [Path(store.url, one) for one in files(store) if one.endswith(".pack")]
    assert len(packs) == 2
    for pack in packs:
        kept = pack.read_bytes()
        pack.write_bytes(kept[:10] if how == "cut" else bytes(len(kept)))
        if how == "gone":
            pack.unlink()
        with open_store(store.url) as reader:
            assert [reader.chunks.get(one) for one in every] == list(every.values())
        pack.write_bytes(kept)


def test_gc_names_a_pack_that_it_cannot_write_anew(store: Store) -> None:
    every = chunks(32)
    put_all(store, every)
    publish(store, "kept", list(every)[:2])
    (pack,) = [one for one in files(store) if one.endswith(".pack")]
    Path(store.url, pack).write_bytes(b"short")
    with open_store(store.url) as gc, pytest.raises(InvalidDump) as caught:
        collect(gc)
    assert "nothing was removed" in str(caught.value) and pack in str(caught.value)
    assert "its pack is cut off" in str(caught.value)


def test_damage_is_named(store: Store) -> None:
    every = chunks(40)
    ids = list(every)
    put_all(store, every)
    store.chunks.flush()
    first, *_, last = [Path(store.url, one) for one in files(store) if one.endswith(".pack")]
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    last.write_bytes(last.read_bytes()[:100])
    said = []
    with open_store(store.url) as other:
        for identity in ids:
            try:
                assert other.chunks.get(identity) == every[identity]
            except InvalidDump as error:
                said.append(error.message)
    assert sum("damaged" in one and "\n" not in one for one in said) == len(said) > 1
    assert any("cut off" in one for one in said)
    first.with_suffix(".index").write_bytes(b"nonsense" * 20)
    with open_store(store.url) as other:
        missing = next(one for one in ids if not other.chunks.has(one))
        with pytest.raises(TargetError, match=r"has no chunk .*\.index: it is no index of a pack"):
            other.chunks.get(missing)


def test_an_upload_that_fails_is_told_once_and_for_all(store: Store) -> None:
    every = chunks(80)
    assert not store.chunks.has(bytes(32))
    Path(store.url, "packs").write_bytes(b"a file where a folder should be")
    with pytest.raises(TargetError, match="cannot write"):
        for identity, data in every.items():
            store.chunks.put(identity, data)
        store.chunks.flush()
    with pytest.raises(TargetError, match="cannot write"):
        publish(store, "none", list(every))
    assert store.names() == []
    Path(store.url, "packs").unlink()
    with open_store(store.url) as again:
        for identity, data in every.items():
            again.chunks.put(identity, data)
        publish(again, "dump", list(every))
        assert again.names() == ["dump"]
