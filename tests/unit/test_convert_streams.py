# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert` through pipes, and of flattened files."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs.cli.main import main
from livedumpfs.dumpfile import NewFile, convert_dump, open_dump, rearrange
from livedumpfs.errors import InvalidDump, TargetError
from tests.fixtures import forks
from tests.fixtures.conversions import Capture, same_dump, same_pages


def run_piped(*arguments: str, stdin: bytes | None = None) -> bytes:
    """A command whose standard output is a pipe."""
    run = forks.run(
        [sys.executable, "-m", "livedumpfs.cli", *arguments],
        input=stdin,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


@pytest.mark.parametrize("to", ["elf", "raw", "lime"])
def test_through_a_pipe_as_into_a_file(
    to: str, source: Callable[..., Path], tmp_path: Path
) -> None:
    first, out = source("kdump"), tmp_path / "out"
    piped = run_piped("convert", str(first), "-", "--format", to)
    assert main(["convert", str(first), str(out), "--format", to]) == 0
    if to != "elf":
        assert piped == out.read_bytes()
        return
    (tmp_path / "piped").write_bytes(piped)
    same_dump(first, tmp_path / "piped")
    assert len(piped) == out.stat().st_size


def test_a_kdump_goes_flattened_through_a_pipe_and_comes_back(
    source: Callable[..., Path], tmp_path: Path
) -> None:
    first, flat, out = source("elf"), tmp_path / "flat", tmp_path / "out"
    piped = run_piped("convert", str(first), "-", "--format", "kdump", "--compress", "lzo")
    assert piped[:16] == b"makedumpfile\0\0\0\0"
    assert struct.unpack_from(">qq", piped, 16) == (1, 1)
    assert piped[-16:] == b"\xff" * 16
    flat.write_bytes(piped)
    assert main(["convert", str(flat), str(out), "--format", "kdump"]) == 0
    same_dump(first, out)
    with open_dump(out) as dump:
        assert (dump.format, dump.compression) == ("kdump", "lzo")
        same_pages(dump)
    again = tmp_path / "again"
    run_piped("convert", "-", str(again), "--format", "kdump", stdin=piped)
    assert again.read_bytes() == out.read_bytes()


def test_flattened_files_become_nothing_else_at_once(
    source: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    first, flat, out = source("elf"), tmp_path / "flat", tmp_path / "out"
    assert main(["convert", str(first), str(flat), "--format", "flat"]) == 0
    capsys.readouterr()
    assert main(["info", str(flat)]) == 3
    assert "flattened form (make a dump of it: livedump convert" in capsys.readouterr().err
    for options in ([], ["--format", "elf"], ["--format", "kdump", "--compress", "zlib"]):
        assert main(["convert", str(flat), str(out), *options]) == 2
        assert "flattened form" in capsys.readouterr().err
        assert not out.exists()


def flattened(source: Path, tmp_path: Path) -> bytes:
    with open_dump(source) as dump, NewFile(str(tmp_path / "flat")) as out:
        convert_dump(dump, "flat", out)
    return (tmp_path / "flat").read_bytes()


RECORD = struct.Struct(">qq")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-16], "broken off"),
        (lambda b: b[:-1], "broken off"),
        (lambda b: b[: len(b) // 2], "broken off"),
        (lambda b: b[:100], "broken off"),
        (lambda b: b"", "broken off"),
        (lambda b: b"x" + b[1:], "not in makedumpfile's flattened form"),
        (lambda b: b[:23] + b"\2" + b[24:], "not in makedumpfile's flattened form"),
        (lambda b: b[:4096] + RECORD.pack(-1, 5) + b[4112:], "impossible place"),
        (lambda b: b[:4096] + RECORD.pack(5, -1) + b[4112:], "impossible place"),
        (lambda b: b[:4096] + RECORD.pack(1 << 62, 1) + b[4112:], "impossible place"),
        (lambda b: b[:4096] + RECORD.pack(0, 1 << 61) + b[4112:], "broken off"),
        (lambda b: b[:4096] + RECORD.pack(-1, -1), "no ELF header and no kdump header"),
    ],
)
def test_bad_records_leave_no_file(
    change: Callable[[bytes], bytes],
    message: str,
    source: Callable[..., Path],
    tmp_path: Path,
) -> None:
    bad, out = tmp_path / "bad", tmp_path / "out"
    bad.write_bytes(change(flattened(source("raw"), tmp_path)))
    with (
        open(bad, "rb") as file,
        pytest.raises(InvalidDump, match=f"{bad} is not a valid dump: .*{message}") as caught,
        NewFile(str(out)) as new,
    ):
        rearrange(file.fileno(), str(bad), new, "kdump")
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_place_that_no_file_can_have_is_an_error_of_the_file(
    source: Callable[..., Path], tmp_path: Path
) -> None:
    content = flattened(source("raw"), tmp_path)
    bad, out = tmp_path / "bad", tmp_path / "out"
    bad.write_bytes(content[:4096] + RECORD.pack((1 << 62) - 1, 1) + b"x" + content[4096:])
    with (
        open(bad, "rb") as file,
        pytest.raises((TargetError, InvalidDump)),
        NewFile(str(out)) as new,
    ):
        rearrange(file.fileno(), str(bad), new, "kdump")
    assert not out.exists()
