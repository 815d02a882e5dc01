# SPDX-License-Identifier: GPL-2.0-or-later
"""Beside casync itself, unmodified: it reads our stores, and we read those that it writes."""

from __future__ import annotations

import filecmp
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from livedumpfs.dumpfile import compare_dumps, open_dump, verify_dump
from livedumpfs.errors import InvalidDump
from livedumpfs.stores import collect, create_store, open_store
from livedumpfs.stores.chunk import DIGESTS, Digest
from tests.fixtures.small_stores import keep_file
from tests.fixtures.written_dumps import DumpWriter
from tests.stores.stored_dumps import CHUNK, MACHINE, MEMORY, OTHER

pytestmark = pytest.mark.skipif(not shutil.which("casync"), reason="needs casync")
DEADLINE = 300


def casync(*words: str | Path) -> str:
    done = subprocess.run(
        ["casync", *map(str, words)], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def files(tmp_path: Path, write_dump: DumpWriter) -> list[Path]:
    """Two dumps, and a file that is none and ends within a chunk."""
    for name, memory in (("a", MEMORY), ("b", OTHER)):
        write_dump(tmp_path / name, memory, granule=CHUNK, machine=MACHINE)
    (tmp_path / "c").write_bytes(random.Random(1).randbytes(5 * CHUNK + 4567) + bytes(CHUNK))
    return [tmp_path / name for name in "abc"]


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("chunk_size", [64 << 10, 1 << 20])
def test_it_extracts_what_we_stored(
    tmp_path: Path, files: list[Path], chunk_size: int, digest: Digest
) -> None:
    """Byte for byte, without being told where the chunks are, nor by which hash they are named; and
    after gc."""
    place = tmp_path / "store"
    with create_store(str(place), chunk_size=chunk_size, digest=digest) as store:
        for file in files:
            keep_file(store, file, file.name)
    for file in files:
        casync("extract", place / f"{file.name}.caibx", tmp_path / "out")
        assert filecmp.cmp(tmp_path / "out", file, shallow=False)
        (tmp_path / "out").unlink()
    with open_store(str(place)) as store:
        store.remove("a")
        collect(store)
    for file in files[1:]:
        casync("extract", place / f"{file.name}.caibx", tmp_path / "out")
        assert filecmp.cmp(tmp_path / "out", file, shallow=False)
        (tmp_path / "out").unlink()


def test_an_image_has_the_digest_that_it_makes_of_the_file(
    tmp_path: Path, files: list[Path]
) -> None:
    with create_store(str(tmp_path / "store")) as store:
        keep_file(store, files[0], "a")
    assert casync("digest", tmp_path / "store/a.caibx") == casync("digest", files[0])


@pytest.mark.parametrize("compression", ["zstd", "xz", "gzip"])
@pytest.mark.parametrize("digest", ["sha512-256", "sha256"])
def test_we_read_what_it_stored(
    tmp_path: Path, files: list[Path], compression: str, digest: str
) -> None:
    """With chunks where it cuts them, in each compression and each digest."""
    index, options = tmp_path / "a.caibx", [f"--compression={compression}", f"--digest={digest}"]
    casync(*options, "--chunk-size=16384", "make", index, files[0])
    with open_dump(files[0]) as file, open_dump(index) as dump:
        assert verify_dump(dump).ok
        assert compare_dumps(file, dump).equal
        assert dump.read_arena(12345, 200_000) == MEMORY[12345:212_345]
    chunks = sorted((tmp_path / "default.castr").rglob("*.cacnk"))
    assert len(chunks) > 5
    for chunk in chunks:
        stored = bytearray(chunk.read_bytes())
        stored[len(stored) // 2] ^= 0xFF
        chunk.write_bytes(stored)
    with pytest.raises(InvalidDump, match="is damaged") as caught, open_dump(index) as dump:
        dump.read_arena(0, len(MEMORY))
    assert str(tmp_path / "default.castr") in str(caught.value)


def test_it_puts_a_dump_into_our_store(tmp_path: Path, files: list[Path]) -> None:
    """Which is a dump of the store then, for list, verify, forget and gc."""
    place = tmp_path / "store"
    with create_store(str(place)) as store:
        keep_file(store, files[0], "a")
        casync("--compression=zstd", "make", place / "b.caibx", files[1])
        with open_dump(files[1]) as file, open_dump(f"{place}#b") as dump:
            assert compare_dumps(file, dump).equal
        collect(store)
        casync("extract", place / "b.caibx", tmp_path / "out")
        assert filecmp.cmp(tmp_path / "out", files[1], shallow=False)
        store.remove("b")
        assert collect(store).chunks > 0
        casync("extract", place / "a.caibx", tmp_path / "again")
        assert filecmp.cmp(tmp_path / "again", files[0], shallow=False)


def test_its_gc_keeps_what_our_indexes_name(tmp_path: Path, files: list[Path]) -> None:
    place = tmp_path / "store"
    with create_store(str(place)) as store:
        for file in files:
            keep_file(store, file, file.name)
        before = dict(store.chunks.every())
        store.remove("c")
        casync("gc", f"--store={place}/default.castr", place / "a.caibx", place / "b.caibx")
        after = dict(store.chunks.every())
        assert set(after) == store.index("a").unique() | store.index("b").unique() < set(before)
