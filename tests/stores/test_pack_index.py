# SPDX-License-Identifier: GPL-2.0-or-later
"""Which chunks lie where: indexes of packs are checked, tables find all and take little memory."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from livedumpfs.errors import InvalidDump
from livedumpfs.stores import create_store, open_store
from livedumpfs.stores.pack_index import (
    ITEM,
    GrowingTable,
    Items,
    PackTable,
    pack_items,
    parse_items,
)


def test_an_index_of_a_pack_is_checked() -> None:
    items = np.zeros(3, ITEM)
    items["length"] = 10
    good = pack_items(items, 10)
    assert (parse_items(good) == items).all()
    source = random.Random(3)
    for _ in range(200):
        wrong = bytearray(good)
        wrong[source.randrange(len(wrong))] ^= 1 << source.randrange(8)
        with pytest.raises(InvalidDump):
            parse_items(bytes(wrong))
    for cut in range(len(good)):
        with pytest.raises(InvalidDump):
            parse_items(good[:cut])
    with pytest.raises(InvalidDump, match="bytes that its pack has not"):
        parse_items(pack_items(items, 9))


def test_a_length_that_no_chunk_has_takes_no_memory(tmp_path: Path) -> None:
    items = np.zeros(1, ITEM)
    items["length"] = 1 << 31
    with pytest.raises(InvalidDump, match="names a chunk that is too long"):
        parse_items(pack_items(items, 1 << 31))
    items["length"] = 100 << 20
    with create_store(str(tmp_path / "store"), layout="packs") as store:
        store.objects.put("packs/00.pack", b"x")
        with open(Path(store.url, "packs/00.pack"), "wb") as file:
            file.truncate(100 << 20)
        store.objects.put("packs/00.index", pack_items(items, 100 << 20))
    with open_store(store.url) as reader:
        with pytest.raises(InvalidDump, match=r"00.pack is damaged: its stored form has 104857600"):
            reader.chunks.get(bytes(32), 64 << 10)
        assert not any(window.data.done() for window in reader.chunks._cache._windows)  # type: ignore[attr-defined]


def random_items(count: int) -> Items:
    items = np.zeros(count, ITEM)
    items["id"] = np.frombuffer(os.urandom(32 * count), np.uint8).reshape(-1, 32)
    items["offset"] = np.arange(count)
    return items


def test_packs_that_come_one_after_the_other_take_little_memory() -> None:
    """44 bytes a chunk, whether they were there or were written just now."""
    packs = {f"packs/{number}": random_items(500) for number in range(100)}
    tracemalloc.start()
    table = GrowingTable()
    for name, items in packs.items():
        table.add(name, items)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 100 * 500 * 44 + 30_000
    assert len(table._tables) <= 16 and sorted(table.names()) == sorted(packs)
    for name, items in packs.items():
        for at in (0, 250, 499):
            (spot,) = table.find(items["id"][at].tobytes())
            assert (spot.pack, spot.offset) == (name, at)
    assert table.find(bytes(32)) == []
    (whole,) = table._tables[:1]
    for name in whole.names:
        assert (whole.items(name) == packs[name]).all()


def test_a_table_of_a_million_chunks() -> None:
    count = 1_000_000
    items = random_items(count)
    table = PackTable([("a", items[: count // 2]), ("b", items[count // 2 :])])
    for at in (0, 1, count // 2, count - 1):
        (spot,) = table.find(items["id"][at].tobytes())
        assert spot.offset == at and spot.pack == ("a" if at < count // 2 else "b")
    assert table.find(bytes(32)) == [] and len(table) == count
