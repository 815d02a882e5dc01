# SPDX-License-Identifier: GPL-2.0-or-later
"""LiveDump.save to a Zarr group and to an Icechunk repository: what comes back, what is kept, and
what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs import Arena, DumpSettings, InconsistentDump, LiveDump, open_arrays
from livedumpfs.dump.array_save import save_arrays
from livedumpfs.errors import InvalidDump, MissingPackage, TargetError, UsageError
from livedumpfs.named import extra as extra_module
from livedumpfs.named.cut import CHUNKS_OF_A_SHARD
from livedumpfs.named.icechunk_group import open_repository
from livedumpfs.named.local_group import MARK
from livedumpfs.named.saving import ArraySave
from tests.fixtures.array_kinds import CHUNK, contents, fill

MIB = 1 << 20
ENDS = ["state.zarr", "state.icechunk"]
SHARD = CHUNK * CHUNKS_OF_A_SHARD
pytestmark = pytest.mark.usefixtures("small_chunks")


def open_group(path: Any, mode: str = "r") -> Any:
    """By Zarr, which is loaded here and not by each process that collects tests."""
    import zarr

    return zarr.open_group(path, mode=mode)


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_arrays_of_all_kinds_come_back(name: str, compression: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    with Arena("16MiB") as arena:
        before = fill(arena)
        settings = DumpSettings(compression=compression)
        assert LiveDump(arena).save(path, settings) == "consistent"
        places = arena.named
    with open_arrays(path) as found:
        assert found.verdict == "consistent" and found.record
        assert found.record.instant["wall_ns"] > 0 and found.record.pause_ns > 0
        assert {one.name: one for one in found.arrays} == {one.name: one for one in places}
        assert found.array("i8").tobytes() == before["i8"]
    with Arena.load(path) as again:
        assert again.size == 16 * MIB
        assert {one.name: one for one in again.named} == {one.name: one for one in places}
        assert contents(again) == before
        again.array("f8", 3, name="one more")  # which lies behind the others
        assert contents(again)["zeros"] == before["zeros"]


@pytest.mark.parametrize("name", ENDS)
def test_it_is_taken_at_one_instant_as_its_reference(name: str, tmp_path: Path) -> None:
    with Arena("64MiB") as arena:
        a = arena.array("u8", (3 * MIB,), name="a")
        a[:] = np.arange(3 * MIB)
        fd = os.memfd_create("reference")
        try:
            os.ftruncate(fd, arena.size)
            assert save_arrays(LiveDump(arena), str(tmp_path / name), reference=fd) == "consistent"
            reference = os.pread(fd, a.nbytes, 0)
        finally:
            os.close(fd)
        a[:] = 0
    with open_arrays(tmp_path / name) as found:
        assert found.array("a").tobytes() == reference


def test_other_libraries_open_it(tmp_path: Path) -> None:
    import dask.array
    import xarray

    path = str(tmp_path / "state.zarr")
    with Arena("64MiB") as arena:
        t = arena.array("f4", (20, 30, 40), name="t", dims=("time", "y", "x"))
        y = arena.array(">f8", (30,), name="y", dims=("y",))
        plain = arena.array("i4", (7,), name="plain")
        t[:] = np.random.default_rng(1).standard_normal(t.shape)
        y[:], plain[:] = np.arange(30), 5
        LiveDump(arena).save(path)
        with xarray.open_zarr(path, consolidated=False) as data:
            assert data["t"].dims == ("time", "y", "x") and data["plain"].dims == ("plain_dim_0",)
            assert (data["t"].values == t).all() and (data["y"].values == y).all()
            assert data["t"].sel(y=3).sum() == pytest.approx(t[:, 3].sum(), rel=1e-5)
            assert data.attrs["livedumpfs"]["verdict"] == "consistent"
        lazy = dask.array.from_zarr(path, component="t")
        assert (lazy.compute() == t).all()
        whole = open_group(path, mode="r")
        assert whole["plain"].metadata.zarr_format == 3


def test_what_is_large_has_shards(tmp_path: Path) -> None:
    with Arena("64MiB") as arena:
        arena.array("u1", (2 * SHARD,), name="a")[:] = 1
        LiveDump(arena).save(tmp_path / "state.zarr")
    node = open_group(tmp_path / "state.zarr", mode="r")["a"]
    assert (node.shards, node.chunks) == ((SHARD,), (CHUNK,))
    files = list((tmp_path / "state.zarr/a/c").iterdir())
    assert len(files) == 2 and sum(one.stat().st_size for one in files) < MIB, "compressed"


def save_again(arena: Arena, path: Path) -> tuple[int, int, int]:
    """Pieces: all, kept, zeros."""
    with LiveDump(arena) as dump, ArraySave(str(path), arena.named) as save:
        save.begin()
        dump.init(None)
        dump.start()
        save.write(dump.snapshot)
        save.publish("consistent", dump.snapshot.describe(), arena.size, None)
        return save.written.pieces, save.written.kept, save.written.zeros


@pytest.mark.parametrize(("name", "piece"), [("state.zarr", SHARD), ("state.icechunk", CHUNK)])
def test_only_what_changed_is_written_again(name: str, piece: int, tmp_path: Path) -> None:
    path = tmp_path / name
    with Arena("4MiB") as arena:
        a = arena.array("u1", (4 * piece,), name="a")
        b = arena.array("f8", (10,), name="b")
        a[:], b[:] = np.random.default_rng(1).integers(1, 256, a.size), 1
        assert save_again(arena, path) == (5, 0, 0)
        assert save_again(arena, path) == (5, 5, 0)
        a[2 * piece + 5] ^= 1
        assert save_again(arena, path) == (5, 4, 0)
        a[piece : 2 * piece] = 0
        assert save_again(arena, path) == (5, 4, 1)
        with Arena.load(path) as again:
            assert contents(again) == contents(arena)
        assert save_again(arena, path) == (5, 4, 1)
        a[piece] = 1
        assert save_again(arena, path) == (5, 4, 0)
        with Arena.load(path) as again:
            assert contents(again) == contents(arena)
        arena.array("f8", (2,), name="c")[:] = 7
        assert save_again(arena, path) == (6, 5, 0)
        with Arena.load(path) as again:
            assert contents(again) == contents(arena)
    with Arena("1MiB") as other:  # the same name, and another array
        other.array("f4", (10,), name="b")[:] = 1
        assert save_again(other, path) == (1, 0, 0)
        with Arena.load(path) as again:
            assert contents(again) == contents(other)
    assert sorted(one.name for one in tmp_path.iterdir()) == [name], "nothing is left beside it"


def test_a_piece_that_another_program_changed_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "state.zarr"
    with Arena("8MiB") as arena:
        arena.array("u1", (CHUNK,), name="a")[:] = 3
        arena.array("u1", (CHUNK,), name="b")[:] = 4
        save_again(arena, path)
        open_group(path, mode="r+")["a"][5] = 9
        with pytest.raises(InvalidDump, match=r"array 'a' of .* is damaged"):
            Arena.load(path)
        assert save_again(arena, path) == (2, 1, 0)
        with Arena.load(path) as again:
            assert contents(again) == contents(arena)


def test_a_commit_of_another_program_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "state.icechunk"
    with Arena("8MiB") as arena:
        arena.array("u1", (CHUNK,), name="a")[:] = 3
        save_again(arena, path)
        session = open_repository(str(path), create=False).writable_session("main")
        open_group(session.store, mode="r+")["a"][5] = 9
        session.commit("of another program")
        with pytest.raises(InvalidDump, match="is damaged"):
            Arena.load(path)
        assert save_again(arena, path) == (1, 0, 0)
        assert save_again(arena, path) == (1, 1, 0)
        with Arena.load(path) as again:
            assert contents(again) == contents(arena)


def test_each_save_of_a_repository_can_be_had(tmp_path: Path) -> None:
    path = tmp_path / "state.icechunk"
    with Arena("8MiB") as arena:
        a = arena.array("u1", (MIB,), name="a")
        for number in range(3):
            a[:] = number
            LiveDump(arena).save(path)
    repository = open_repository(str(path), create=False)
    commits = [one.id for one in repository.ancestry(branch="main")][:3]
    for commit, number in zip(commits, (2, 1, 0), strict=True):
        with open_arrays(path, version=commit) as found:
            assert (found.array("a") == number).all()


def test_a_lazy_reader_of_a_repository_stays_at_its_save(tmp_path: Path) -> None:
    path = tmp_path / "state.icechunk"
    with Arena("64MiB") as arena:
        a = arena.array("u1", (3 * CHUNK,), name="a")
        a[:] = 1
        LiveDump(arena).save(path)
        with open_arrays(path) as found:
            a[:] = 2
            LiveDump(arena).save(path)
            assert (found.array("a") == 1).all()


# ------------------------------------------------------------------------- refused


def small(arena: Arena) -> Arena:
    arena.array("u1", (MIB,), name="a")[:] = 3
    return arena


@pytest.mark.parametrize("name", ENDS)
def test_something_else_is_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.mkdir()
    with small(Arena("8MiB")) as arena:
        assert LiveDump(arena).save(path) == "consistent", "an empty folder is nothing"
    other = tmp_path / f"other.{name}"
    other.mkdir()
    (other / "letter").write_text("keep me")
    file = tmp_path / f"file.{name}"
    file.write_text("keep me")
    with small(Arena("8MiB")) as arena:
        for there in (other, file):
            for force in (False, True):
                with pytest.raises(TargetError, match="is there, and is no") as raised:
                    LiveDump(arena).save(there, DumpSettings(force=force))
                assert raised.value.errno == errno.EEXIST
    assert (other / "letter").read_text() == file.read_text() == "keep me"


def test_a_group_of_another_program_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "state.zarr"
    open_group(path, mode="w").create_array("x", shape=(3,), dtype="f4")[:] = 5
    with Arena.load(path, check=False) as found:
        assert (found.arrays["x"] == 5).all()
    with pytest.raises(InconsistentDump, match="is incomplete"):
        Arena.load(path)
    with small(Arena("8MiB")) as arena:
        with pytest.raises(TargetError, match=r"not saved by livedumpfs .force=True replaces"):
            LiveDump(arena).save(path)
        assert set(open_group(path, mode="r").keys()) == {"x"}
        LiveDump(arena).save(path, DumpSettings(force=True))
    assert set(open_group(path, mode="r").keys()) == {"a"}


def test_another_save_at_the_same_time(tmp_path: Path) -> None:
    for name in ENDS:
        path = tmp_path / name
        with small(Arena("8MiB")) as arena, ArraySave(str(path), arena.named) as first:
            first.begin()
            with pytest.raises(TargetError, match="another save writes") as raised:
                LiveDump(arena).save(path)
            assert raised.value.errno == errno.EBUSY
            assert LiveDump(arena).state.name == "UNINIT"


def test_what_cannot_be_made_says_so(tmp_path: Path) -> None:
    with small(Arena("8MiB")) as arena:
        with pytest.raises(TargetError, match=r"nowhere/s\.zarr: No such file or directory"):
            LiveDump(arena).save(tmp_path / "nowhere/s.zarr")
        (tmp_path / "s.zarr.incomplete").mkdir()
        with pytest.raises(TargetError, match="none of a save that was broken off"):
            LiveDump(arena).save(tmp_path / "s.zarr")
    with Arena("1MiB") as arena, pytest.raises(UsageError, match="no named arrays"):
        LiveDump(arena).save(tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr").exists()


@pytest.mark.parametrize(
    ("name", "dtype", "said"),
    [
        ("a/b", "f4", "array 'a/b' cannot be in a Zarr group: its name"),
        ("..", "f4", "its name"),
        ("__a", "f4", "its name"),
        ("zarr.json", "f4", "its name"),
        ("a" * 300, "f4", "its name"),
        ("long", "g", "array 'long' of dtype float128 cannot be in a Zarr group: No Zarr data"),
        ("gaps", np.dtype([("a", "i1"), ("b", "f8")], align=True), "gaps between them"),
        ("sub", [("a", "f8", (2,))], "its fields have a shape"),
    ],
)
def test_arrays_that_zarr_cannot_hold(name: str, dtype: Any, said: str, tmp_path: Path) -> None:
    with Arena("1MiB") as arena, LiveDump(arena) as dump:
        arena.array(dtype, (3,), name=name)
        with pytest.raises(UsageError, match=said):
            dump.save(tmp_path / "s.zarr")
        assert dump.state.name == "UNINIT" and not list(tmp_path.iterdir())


def test_a_compression_that_zarr_has_not(tmp_path: Path) -> None:
    with small(Arena("8MiB")) as arena:
        with pytest.raises(UsageError, match="no compression lzo"):
            LiveDump(arena).save(tmp_path / "s.zarr", DumpSettings(compression="lzo"))
        with pytest.raises(UsageError, match="not a dump of format kdump"):
            LiveDump(arena).save(tmp_path / "s.zarr", DumpSettings(format="kdump"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["zarr", "icechunk", "obstore"])
def test_a_package_that_is_missing(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = extra_module.importlib.import_module

    def without(name: str) -> Any:
        if name.partition(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name)

    monkeypatch.setattr(extra_module.importlib, "import_module", without)
    path = {"zarr": "s.zarr", "icechunk": "s.icechunk", "obstore": "s3://bucket/s.zarr"}[module]
    said = rf"does not have the Python package {module} \(pip install 'livedumpfs\[zarr\]'\)"
    with small(Arena("8MiB")) as arena, pytest.raises(MissingPackage, match=said):
        LiveDump(arena).save(path)
    with pytest.raises(ImportError, match=said):
        open_arrays("s3://bucket/s.zarr" if module == "obstore" else path)


# ---------------------------------------------------------------- torn, and broken off


class Overwriting:
    """A snapshot of which much is overwritten before it is read: more than it may keep."""

    def __init__(self, dump: LiveDump, array: Any) -> None:
        self._start, self._array = dump.start, array

    def __call__(self) -> None:
        self._start()
        self._array[:] = 9


def torn(arena: Arena, path: Path, monkeypatch: pytest.MonkeyPatch, **how: Any) -> str:
    dump = LiveDump(arena)
    settings = DumpSettings(pool=MIB, spill_limit=MIB, granule=65536)
    monkeypatch.setattr(dump, "start", Overwriting(dump, arena.arrays["a"]))
    return dump.save(path, settings, **how)


def test_a_torn_one_is_left_out_or_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.zarr"
    with Arena("16MiB") as arena:
        a = arena.array("u1", (8 * MIB,), name="a")
        b = arena.array("u1", (MIB,), name="b")
        a[:], b[:] = 3, 4
        with pytest.raises(InconsistentDump, match="in memory is torn: more was overwritten"):
            torn(arena, path, monkeypatch)
        assert not list(tmp_path.iterdir())
        a[:] = 3
        assert torn(arena, path, monkeypatch, check=False) == "torn"
        with open_arrays(path) as found:
            assert found.verdict == "torn" and found.record
            assert "more was overwritten" in str(found.record.reason)
            data = found.array("a")
            assert (found.array("b") == 4).all() and not found.record.arrays["b"].missing
            assert set(np.unique(data)) == {0, 3}
            lost = np.zeros(len(data), bool)
            for one in found.record.arrays["a"].missing:
                lost[one.first : one.end] = True
            assert (data[lost] == 0).all() and (data[~lost] == 3).all()
        with pytest.raises(InconsistentDump, match=r"state\.zarr is torn"):
            Arena.load(path)
        with Arena.load(path, check=False) as again:
            assert set(np.unique(again.arrays["a"])) == {0, 3}
        # A consistent one takes its place, and is not given up for a torn one.
        a[:] = 5
        assert LiveDump(arena).save(path) == "consistent"
        with pytest.raises(TargetError, match=r"the dump is torn, and .* holds a consistent one"):
            torn(arena, path, monkeypatch, check=False)
        with Arena.load(path) as again:
            assert (again.arrays["a"] == 5).all()


def test_one_that_was_broken_off(tmp_path: Path) -> None:
    path = tmp_path / "state.zarr"
    with small(Arena("8MiB")) as arena:
        save = ArraySave(str(path), arena.named)
        save.begin()
        half = tmp_path / "state.zarr.incomplete"
        assert (half / MARK).exists()
        os.close(save._target._lock)  # type: ignore[attr-defined]  # as when it is killed
        with pytest.raises(InvalidDump, match=r"incomplete: it is incomplete: its save was broken"):
            open_arrays(half)
        with pytest.raises(FileNotFoundError):
            open_group(half, mode="r")
        assert LiveDump(arena).save(path) == "consistent"
        assert [one.name for one in tmp_path.iterdir()] == ["state.zarr"]
