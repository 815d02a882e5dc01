# SPDX-License-Identifier: GPL-2.0-or-later
"""A damaged chunk is not relied on for ever: it is set aside, and the next dump puts it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from livedumpfs.cli.main import main
from livedumpfs.dumpfile import set_aside_damaged, verify_store
from livedumpfs.errors import TargetError
from livedumpfs.formats import Plan
from livedumpfs.stores import Store, collect, create_store, open_store
from livedumpfs.stores.packs import PackChunks
from tests.fixtures.small_stores import chunk_file, keep_file
from tests.fixtures.store_streams import image_of
from tests.stores.stored_dumps import CHUNK, MACHINE, MEMORY

WriteDump = Callable[..., Plan]


@pytest.fixture
def dump(tmp_path: Path, write_dump: WriteDump) -> Path:
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE)
    return tmp_path / "dump"


@pytest.mark.parametrize("spoil", [b"x", b"\x28\xb5\x2f\xfdnonsense", None], ids=str)
def test_verify_repair_and_the_next_dump(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: bytes | None
) -> None:
    """Wrong from the beginning, as another member of the group may have put it, or cut later."""
    place = str(tmp_path / "s")
    with create_store(place) as store:
        index = keep_file(store, dump, "a")
        chunk = chunk_file(store, index.id(len(index) - 1))
        good = chunk.read_bytes()
        chunk.write_bytes(good[: len(good) // 2] if spoil is None else spoil)
        keep_file(store, dump, "b")  # it relies on the chunk: only a reader sees that it is wrong
        assert main(["verify", place, "--repair"]) == 3
        assert "1 damaged chunk set aside" in capsys.readouterr().err
        assert not chunk.exists() and chunk.with_name(chunk.name + ".damaged").exists()
        assert main(["verify", place, "--repair"]) == 3  # the dumps lose it until it is put again
        assert "0 damaged chunks set aside" in capsys.readouterr().err
        assert collect(store).missing == 1
        keep_file(store, dump, "c")
        assert main(["verify", place]) == 0
        assert {image_of(store, name) for name in "abc"} == {dump.read_bytes()}


def test_a_chunk_that_is_right_stays(dump: Path, tmp_path: Path) -> None:
    """It was put again between the check and the repair."""
    with create_store(str(tmp_path / "s")) as store:
        index = keep_file(store, dump, "a")
        chunk = chunk_file(store, index.id(0))
        good = chunk.read_bytes()
        chunk.write_bytes(b"x")
        report = verify_store(store)
        chunk.write_bytes(good)
        assert set_aside_damaged(store, report) == 0 and chunk.read_bytes() == good


def spoil_in_packs(store: Store, identity: bytes, how: bytes | None) -> None:
    """In each pack that has it: other bytes; None: the pack ends within it."""
    assert isinstance(store.chunks, PackChunks)
    for spot in store.chunks._find(identity):
        pack = Path(store.url, spot.pack + ".pack")
        good = pack.read_bytes()
        end = b"" if how is None else good[spot.offset + len(how) :]
        pack.write_bytes(good[: spot.offset] + (how or b"") + end)


@pytest.mark.parametrize("spoil", [b"nonsense", None], ids=str)
@pytest.mark.parametrize("encrypted", [False, True])
def test_in_packs(
    dump: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    encrypted: bool,
    spoil: bytes | None,
) -> None:
    place, key = str(tmp_path / "s"), pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(str(key))
    if encrypted:
        monkeypatch.setenv("LIVEDUMP_IDENTITY", str(tmp_path / "key"))
    recipients = [str(key.to_public())] if encrypted else []
    with create_store(place, layout="packs", recipients=recipients) as store:
        index = keep_file(store, dump, "a")
        spoil_in_packs(store, index.id(len(index) - 1), spoil)
        assert main(["verify", place, "--repair"]) == 3
        assert "1 damaged chunk set aside" in capsys.readouterr().err
    with open_store(place) as store:
        assert main(["verify", place, "--repair"]) == 3
        assert "0 damaged chunks set aside" in capsys.readouterr().err
        assert collect(store).missing == 1
        keep_file(store, dump, "b")
        assert main(["verify", place]) == 0
        assert {image_of(store, name) for name in "ab"} == {dump.read_bytes()}
        collect(store)
        assert main(["verify", place]) == 0


def test_a_pack_of_which_nothing_is_right_goes_with_the_next_gc(dump: Path, tmp_path: Path) -> None:
    with create_store(str(tmp_path / "s"), layout="packs") as store:
        keep_file(store, dump, "a")
        (pack,) = Path(store.url, "packs").glob("*.pack")
        good = pack.read_bytes()
        pack.write_bytes(bytes(len(good)))
        report = verify_store(store)
        assert report.chunks == 0 and set_aside_damaged(store, report) == len(report.dumps[0].wrong)
        keep_file(store, dump, "b")
        collect(store)
        assert not pack.exists() and image_of(store, "a") == dump.read_bytes()


def test_of_two_copies_in_packs_the_right_one_stays(dump: Path, tmp_path: Path) -> None:
    """Two dumps that were made at once."""
    with create_store(str(tmp_path / "s"), layout="packs") as store, open_store(store.url) as other:
        other.chunks.has(bytes(32))  # what is there now is what it knows
        index = keep_file(store, dump, "a")
        with store.lock():
            pass
        keep_file(other, dump, "b")
        packs = sorted(Path(store.url, "packs").glob("*.pack"))
        assert len(packs) == 2
        wanted = {index.id(0): (index.sizes[2], index.digest)}
        packs[0].write_bytes(bytes(packs[0].stat().st_size))
        with store.lock(alone=True):
            assert store.chunks.set_aside(wanted) == 1
            assert store.chunks.set_aside(wanted) == 0 and store.chunks.has(index.id(0))
        assert verify_store(store).problems == []


def test_where_it_cannot_be(dump: Path, tmp_path: Path) -> None:
    with create_store(str(tmp_path / "s")) as store:
        keep_file(store, dump, "a")
        report = verify_store(store)
        with store.lock(), pytest.raises(TargetError, match="in use"):
            set_aside_damaged(store, report)
    assert main(["verify", str(dump), "--repair"]) == 2


def test_the_hint_of_gc_is_of_the_file_that_is_damaged(dump: Path, tmp_path: Path) -> None:
    with create_store(str(tmp_path / "s")) as store:
        index = keep_file(store, dump, "a")
        (tmp_path / "s/sub").mkdir()
        for name, hint in (
            ("sub/x.caibx", "to remove that file gives it up"),
            ("x.caidx", "to remove that file gives it up"),
            ("x.caibx", "`livedump forget .* x` gives it up"),
        ):
            path = tmp_path / "s" / name
            path.write_bytes(index.pack()[:-1])
            with pytest.raises(Exception, match=hint):
                collect(store)
            path.unlink()
