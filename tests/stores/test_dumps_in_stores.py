# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps that lie in a store are read as those of files: by each name, in each format, in part, and
beside others."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.dumpfile import (
    NewFile,
    compare_dumps,
    convert_dump,
    describe_dump,
    files_of,
    open_dump,
    open_filtered,
    verify_dump,
)
from livedumpfs.errors import InvalidDump, TargetError, UsageError
from livedumpfs.formats import Plan
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED
from livedumpfs.stores import Store, create_store, open_store
from livedumpfs.stores.store_image import StoreImage
from tests.fixtures.small_stores import BEGAN, HOUR, chunk_file, keep_file
from tests.stores.stored_dumps import CHANGED, CHUNK, MACHINE, MEMORY, OTHER, PAGE

WriteDump = Callable[..., Plan]
FIRST, SECOND = "20261129T100000Z-aaaa", "20261129T110000Z-bbbb"


@pytest.fixture
def place(tmp_path: Path, write_dump: WriteDump) -> str:
    """A store with two dumps, which lie beside it as the files `a` and `b`, too."""
    with create_store(str(tmp_path / "store")) as store:
        for name, file, memory, at in (
            (FIRST, "a", MEMORY, BEGAN),
            (SECOND, "b", OTHER, BEGAN + HOUR),
        ):
            write_dump(tmp_path / file, memory, granule=CHUNK, machine=MACHINE)
            keep_file(store, tmp_path / file, name, instant_ns=at)
    return str(tmp_path / "store")


def test_by_each_of_its_names(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, memory in (
        (f"{place}#{FIRST}", MEMORY),
        (f"store:{place}#{FIRST}", MEMORY),
        (f"{place}#20261129T10", MEMORY),
        (f"{place}/{FIRST}.caibx", MEMORY),
        (f"{place}#latest", OTHER),
        (f"store:{place}#{SECOND}", OTHER),
    ):
        with open_dump(name) as dump:
            assert dump.verdict == "consistent" and dump.sidecar is None
            assert dump.read_arena(0, len(memory)) == memory
            assert dump.path.endswith((FIRST, SECOND, ".caibx"))
    monkeypatch.chdir(place)
    for name in (f"{FIRST}.caibx", f".#{FIRST}", f"../store#{FIRST}"):
        with open_dump(name) as dump:
            assert dump.read_arena(0, 10) == MEMORY[:10]


def test_a_file_of_that_name_comes_first(place: str, tmp_path: Path, write_dump: WriteDump) -> None:
    write_dump(f"{place}#latest", bytes(PAGE) + b"x" * PAGE)
    with open_dump(f"{place}#latest") as dump:
        assert dump.arena_size == 2 * PAGE
    with open_dump(f"store:{place}#latest") as dump:
        assert dump.arena_size == len(MEMORY)
    write_dump(tmp_path / "a#b", bytes(PAGE))
    with open_dump(tmp_path / "a#b") as dump:
        assert dump.arena_size == PAGE


def test_the_last_of_one_second(place: str, tmp_path: Path) -> None:
    """Their names do not say which was later, their records do."""
    with open_store(place) as store:
        keep_file(store, tmp_path / "a", f"{SECOND[:16]}-0000", instant_ns=BEGAN + HOUR + 5)
        assert store.resolve("latest") == f"{SECOND[:16]}-0000"
        keep_file(store, tmp_path / "a", "zero", instant_ns=BEGAN)
        assert store.resolve("latest") == f"{SECOND[:16]}-0000"


@pytest.mark.parametrize(
    ("name", "cause", "kind"),
    [
        ("store", "is a store of dumps, and none of them is named .*#latest", UsageError),
        ("store#", "has no dump ''", TargetError),
        ("store#2026", "has 2 dumps '2026'", TargetError),
        ("store#nothing", "has no dump 'nothing'", TargetError),
        ("nothing#latest", "No such file or directory", TargetError),
        ("a#latest", "No such file or directory", TargetError),
    ],
)
def test_names_of_nothing(
    place: str, tmp_path: Path, name: str, cause: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=cause):
        open_dump(tmp_path / name)
    if name.startswith("store"):
        with pytest.raises(kind, match=cause):
            open_dump(f"store:{tmp_path}/{name}")


@pytest.mark.parametrize("format", ["elf", "kdump", "raw"])
def test_any_format_that_another_program_has_put_there(
    tmp_path: Path, write_dump: WriteDump, format: str
) -> None:
    """A kdump is unpacked from copies of its pages; a raw dump has its table at the tail."""
    states = [SAVED, HOLE, LOST, ARMED] + [SAVED] * 12
    memory = bytearray(MEMORY)
    memory[CHUNK : 2 * CHUNK] = bytes(CHUNK)
    path = tmp_path / "dump"
    write_dump(
        path, bytes(memory), granule=CHUNK, machine=MACHINE, states=states, format=format,
        table="tail" if format == "raw" else "sidecar", verdict="torn",
    )  # fmt: skip
    with create_store(str(tmp_path / "store")) as store:
        keep_file(store, path, "one")
    with open_dump(path) as one, open_dump(f"{tmp_path}/store#one") as other:
        described = [{**describe_dump(dump), "path": ""} for dump in (one, other)]
        assert described[0] == described[1]
        assert other.format == format
        assert compare_dumps(one, other).pages == compare_dumps(one, one).pages
        assert verify_dump(one).problems == verify_dump(other).problems
        for dump in (one, other):
            assert dump.read_arena(0, 2 * CHUNK) == memory[: 2 * CHUNK]
            assert dump.read_arena(4 * CHUNK, 5 * PAGE + 7) == memory[4 * CHUNK :][: 5 * PAGE + 7]
            with pytest.raises(OSError, match=r"page 0x20 of .* is lost"):
                dump.read_arena(2 * CHUNK, 1)


def test_a_raw_dump_with_a_sidecar_elsewhere(tmp_path: Path, write_dump: WriteDump) -> None:
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, format="raw")
    with create_store(str(tmp_path / "store")) as store:
        keep_file(store, tmp_path / "dump", "one")
    place = f"{tmp_path}/store#one"
    with pytest.raises(InvalidDump, match=r"has no ELF header and no kdump header$"):
        open_dump(place)
    with open_dump(place, tmp_path / "dump.ldfs") as dump:
        assert dump.read_arena(0, len(MEMORY)) == MEMORY


def test_its_files_and_conversions(place: str, tmp_path: Path) -> None:
    """The images of a mount and the outputs of convert are those of the file."""
    with open_dump(tmp_path / "a") as file, open_dump(f"{place}#{FIRST}") as dump:
        here, there = files_of(file), files_of(dump)
        for name in ("vmcore", "mem.raw", "mem.lime"):
            size = here.size(name)
            assert there.size(name) == size
            views = [memoryview(bytearray(size)) for _ in range(2)]
            here.open(name).read_into(0, views[0])
            there.open(name).read_into(0, views[1])
            assert views[0] == views[1]
        for format in ("kdump", "elf"):
            with NewFile(str(tmp_path / format)) as out:
                convert_dump(dump, format, out)
            with open_dump(tmp_path / format) as made:
                assert compare_dumps(file, made).equal


def test_arrays_are_read_where_they_cannot_be_mapped(tmp_path: Path, write_dump: WriteDump) -> None:
    arrays = [{"name": "x", "dtype": "<u4", "shape": [len(MEMORY) // 4], "offset": 0}]
    write_dump(tmp_path / "a", MEMORY * 2, granule=CHUNK, meta={"arrays": arrays})
    with create_store(str(tmp_path / "store")) as store:
        keep_file(store, tmp_path / "a", "one")
    with open_dump(f"{tmp_path}/store#one") as dump:
        found = dump.array("x")
        assert found.tobytes() == MEMORY
        found[0] += 1  # a copy
        assert dump.array("x").tobytes() == MEMORY


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all reads of images from now on."""
    lengths: list[int] = []
    real = StoreImage.read_into

    def read_into(image: StoreImage, offset: int, view: memoryview) -> int:
        lengths.append(len(view))
        return real(image, offset, view)

    monkeypatch.setattr(StoreImage, "read_into", read_into)
    return lengths


@pytest.mark.parametrize("elsewhere", [False, True])
def test_compare_reads_no_chunk_that_both_have(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """Also of two stores; and the result is that of the files."""
    if elsewhere:
        with create_store(str(tmp_path / "two")) as store:
            keep_file(store, tmp_path / "b", SECOND)
    other = str(tmp_path / "two") if elsewhere else place
    with open_dump(f"{place}#{FIRST}") as a, open_dump(f"{other}#{SECOND}") as b:
        lengths = counted(monkeypatch)
        found = compare_dumps(a, b)
        chunks = {page * PAGE // CHUNK for page in CHANGED}
        assert sum(lengths) == 2 * len(chunks) * CHUNK
    with open_dump(tmp_path / "a") as one, open_dump(tmp_path / "b") as two:
        assert found == compare_dumps(one, two)
    assert found.pages[1] == len(CHANGED)
    with open_dump(tmp_path / "a") as one, open_dump(f"{other}#{SECOND}") as b:
        assert found == compare_dumps(one, b)


def test_what_no_table_calls_saved_is_compared(tmp_path: Path, write_dump: WriteDump) -> None:
    """The same chunk may be a hole to one dump, and pages to the other."""
    states = [HOLE] + [SAVED] * 15
    write_dump(tmp_path / "a", MEMORY, granule=CHUNK)
    with create_store(str(tmp_path / "store")) as store:
        keep_file(store, tmp_path / "a", "a")
        write_dump(tmp_path / "b", MEMORY, granule=CHUNK, states=states)
        data = bytearray((tmp_path / "b").read_bytes())
        data[-len(MEMORY) : -len(MEMORY) + CHUNK] = MEMORY[:CHUNK]  # bytes where a hole should be
        (tmp_path / "b").write_bytes(data)
        keep_file(store, tmp_path / "b", "b")
    pages = []
    for names in (("a", "b"), ("store#a", "store#b")):
        a, b = (open_dump(tmp_path / name) for name in names)
        with a, b:
            pages.append(compare_dumps(a, b))
            assert verify_dump(b).checksums.stale == [(0, 16)]
    assert pages[0] == pages[1] and pages[0].pages[1] == 16


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    with open_store(place) as found:
        yield found


def test_a_chunk_that_is_gone(place: str, store: Store) -> None:
    """Its pages alone are unreadable, and verify names them."""
    index = store.index(FIRST)
    memory = len(index) - len(MEMORY) // CHUNK
    chunk_file(store, index.id(memory + 2)).unlink()
    with open_dump(f"{place}#{FIRST}") as dump:
        assert dump.read_arena(3 * CHUNK, CHUNK) == MEMORY[3 * CHUNK : 4 * CHUNK]
        with pytest.raises(OSError, match="is missing") as caught:
            dump.read_arena(2 * CHUNK, 1)
        assert caught.value.errno == errno.EIO
        problems = verify_dump(dump).problems
    assert problems[0] == "pages 0x20-0x2f cannot be read"
    with open_dump(f"{place}#{SECOND}") as other, pytest.raises(OSError, match="is missing"):
        other.read_arena(2 * CHUNK, 1)


def test_zeros_that_are_gone(place: str, store: Store) -> None:
    """Our reader does not need them; casync does."""
    index = store.index(FIRST)
    hole = len(index) - len(MEMORY) // CHUNK + 5
    chunk_file(store, index.id(hole)).unlink()
    with open_dump(f"{place}#{FIRST}") as dump:
        assert dump.read_arena(0, len(MEMORY)) == MEMORY
        [problem] = verify_dump(dump).problems
    assert index.id(hole).hex() in problem and "No such file" in problem


def test_a_description_that_is_gone(place: str, store: Store) -> None:
    index = store.index(FIRST)
    chunk_file(store, index.id(0)).write_bytes(b"")
    with pytest.raises(InvalidDump, match=rf"#{FIRST} is not a valid dump: chunk \S+ is damaged"):
        open_dump(f"{place}#{FIRST}")
    assert open_filtered(f"{place}#{FIRST}") is None


def test_an_index_that_is_damaged(place: str) -> None:
    path = Path(place) / f"{FIRST}.caibx"
    path.write_bytes(path.read_bytes()[:-1])
    for name in (f"{place}#{FIRST}", str(path)):
        with pytest.raises(InvalidDump, match=rf"{FIRST}.caibx is damaged: its table"):
            open_dump(name)
    alone = path.parent.parent / "alone.caibx"
    alone.write_bytes(path.read_bytes())
    with pytest.raises(InvalidDump, match=r"the index \S+alone.caibx is not valid: its table"):
        open_dump(alone)
