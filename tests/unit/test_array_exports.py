# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert` to files of arrays: what their own libraries read is what the dump has."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from livedumpfs import Arena, DumpSettings, LiveDump, open_arrays, open_dump
from livedumpfs.cli.main import main
from livedumpfs.cli.outcome import Exit
from livedumpfs.formats.table import LOST, SAVED
from tests.fixtures.array_kinds import KINDS, contents, fill

MIB = 1 << 20
SIMPLE = ("half", "double", "i8", "bool", "complex", "big single", "rows", "scalar", "empty")


@pytest.fixture(scope="module", params=["elf", "kdump", "raw"])
def dump(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("dump") / "dump"
    with Arena("16MiB") as arena:
        fill(arena)
        LiveDump(arena).save(path, DumpSettings(format=request.param))
    return path


def arrays_of(path: Path) -> dict[str, Any]:
    with open_dump(path) as dump:
        return {one.name: np.array(dump.array(one.name)) for one in dump.arrays}


def convert(*words: str | Path) -> int:
    return main(["convert", *map(str, words)])


def test_npz(dump: Path, tmp_path: Path) -> None:
    assert convert(dump, tmp_path / "out.npz") == 0
    expected = arrays_of(dump)
    with np.load(tmp_path / "out.npz") as found:
        assert set(found) == set(expected) == set(KINDS)
        for name, array in expected.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes(), name


def test_npy(dump: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, array in arrays_of(dump).items():
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        assert convert(dump, out, "--array", name) == 0
        found = np.load(out)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes(), name
    assert convert(dump, tmp_path / "all.npy") == Exit.USAGE
    said = capfd.readouterr().err
    assert f"a .npy file has one array, and the dump has {len(KINDS)} ('bool', " in said
    assert not (tmp_path / "all.npy").exists()


def test_safetensors(dump: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    assert convert(dump, out, *[word for name in SIMPLE for word in ("--array", name)]) == 0
    expected = arrays_of(dump)
    found = safetensors.numpy.load_file(out)
    assert set(found) == set(SIMPLE)
    for name in SIMPLE:
        assert np.array_equal(found[name], expected[name], equal_nan=name != "bool"), name
    with safe_open(out, framework="np") as file:
        said = json.loads(file.metadata()["livedumpfs"])
    assert said["verdict"] == "consistent" and said["instant_ns"] > 0
    assert convert(dump, out, "--array", "half") == 1
    assert "File exists" in capfd.readouterr().err
    assert convert(dump, tmp_path / "all.safetensors") == Exit.USAGE
    said = capfd.readouterr().err
    assert "array 'big complex' of dtype >c16 cannot be in a safetensors file" in said
    assert [one.name for one in tmp_path.iterdir()] == ["out.safetensors"]


@pytest.mark.parametrize("name", ["out.zarr", "out.icechunk"])
def test_zarr(dump: Path, tmp_path: Path, name: str) -> None:
    assert convert(dump, tmp_path / name, "--compress", "none") == 0
    with Arena.load(tmp_path / name) as again, Arena.load(dump) as expected:
        assert contents(again) == contents(expected)
    with open_dump(dump) as said, open_arrays(tmp_path / name) as found:
        assert found.record and found.record.instant == said.meta["instant"]
        assert found.verdict == "consistent"


def test_standard_output(dump: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "livedumpfs.cli", "convert", str(dump), "-"]
    with open(tmp_path / "out", "wb") as out:
        subprocess.run([*command, "--format", "npz"], stdout=out, check=True, timeout=300)
    with np.load(tmp_path / "out") as found:
        assert set(found) == set(KINDS)
    done = subprocess.run(
        [*command, "--format", "zarr"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == Exit.USAGE and "does not go to standard output" in done.stderr


@pytest.mark.parametrize("end", ["npz", "npy", "safetensors", "zarr"])
def test_pages_of_an_array_are_missing(
    end: str,
    tmp_path: Path,
    write_dump: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of two arrays one is whole."""
    memory = np.arange(8 * 4096, dtype=np.uint32)
    listed = [
        {"name": "whole", "dtype": "<u4", "shape": [4096], "offset": 0},
        {"name": "broken", "dtype": "<u4", "shape": [4, 4096], "offset": 4 * 16384},
    ]
    states = [SAVED] * 8
    states[5] = LOST
    path = tmp_path / "dump"
    write_dump(
        path, memory.tobytes(), granule=16384, states=states, verdict="torn",
        meta={"arrays": listed},
    )  # fmt: skip
    out = tmp_path / f"out.{end}"
    assert convert(path, out, "--array", "broken") == 3
    said = capfd.readouterr().err
    assert "dump is torn: 4 pages of array 'broken' are missing, of pages 0x14 to 0x17" in said
    assert [one.name for one in tmp_path.iterdir()] == ["dump"]
    assert convert(path, out, "--array", "whole") == 0
    assert "is torn; the arrays are whole" in capfd.readouterr().err
    forced = tmp_path / f"forced.{end}"
    assert convert(path, forced, "--array", "broken", "--force") == 0
    assert "16384 bytes of the arrays written as zeros" in capfd.readouterr().err
    expected = memory[4 * 4096 : 8 * 4096].reshape(4, 4096).copy()
    expected[1] = 0
    assert (loaded(forced, "broken") == expected).all()
    assert (loaded(out, "whole") == memory[:4096]).all()


def loaded(path: Path, name: str) -> Any:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)[name]
    if path.suffix == ".zarr":
        with open_arrays(path) as found:
            return found.array(name)
    with np.load(path) as archive:
        return archive[name]


def test_what_is_refused(dump: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def said(*words: str | Path) -> str:
        assert convert(*words) in (Exit.USAGE, Exit.FAILED)
        return capfd.readouterr().err

    there = tmp_path / "there.npz"
    there.write_text("keep me")
    assert os_error(errno.EEXIST) in said(dump, there)
    assert there.read_text() == "keep me"
    assert "has no array 'x' (it has 'bool', " in said(dump, tmp_path / "o.npz", "--array", "x")
    wrong = said(dump, tmp_path / "o", "--array", "bool")
    assert "--array goes with --format npy, not with elf" in wrong
    assert "not with npz" in said(dump, tmp_path / "o.npz", "--compress", "zstd")
    assert [one.name for one in tmp_path.iterdir()] == ["there.npz"]


def os_error(code: int) -> str:
    return os.strerror(code)


def test_a_dump_without_arrays(
    tmp_path: Path, write_dump: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    write_dump(tmp_path / "dump", bytes(8192))
    assert convert(tmp_path / "dump", tmp_path / "o.npz") == Exit.USAGE
    assert "dump has no named arrays" in capfd.readouterr().err
