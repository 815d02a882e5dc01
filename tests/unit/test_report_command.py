# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump report`: where its page goes, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.cli.main import main
from tests.fixtures.html_pages import parse
from tests.fixtures.makedumpfiles import small_filtered

PAGE = 4096


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_dump: Callable[..., Any]) -> Path:
    monkeypatch.chdir(tmp_path)
    write_dump(tmp_path / "dump", bytes(range(256)) * 64)
    (tmp_path / "letter").write_text("Dear reader,\n" * 1000)
    return tmp_path / "dump"


@pytest.mark.usefixtures("dump")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("report nosuch -o page", 1, "cannot read dump nosuch: No such file or directory"),
        ("report letter -o page", 3, "letter is not a valid dump"),
        ("report dump -o dump", 1, "cannot make dump: File exists"),
        ("report dump -o no/page", 1, "cannot make no/page: "),
        ("report dump -o page --against nosuch", 1, "cannot read dump nosuch"),
        ("report dump -o page --against letter", 3, "letter is not a valid dump"),
        ("report dump -o page --device x", 2, "DUMP and --device exclude each other"),
        ("report dump -o page --sidecar-against x", 2, "--sidecar-against goes with --against"),
        ("report dump", 2, "the following arguments are required: -o/--out"),
        ("report -o page --device /no/where", 1, "/no/where"),
        ("report -o page --against dump --device x", 2, "--against goes with a DUMP"),
        ("report -o page --sidecar dump --device x", 2, "--sidecar goes with a DUMP"),
        ("report -o page", 1, "no host is running"),
        ("report dump -o page --sidecar letter", 3, "has no sidecar file"),
    ],
)
def test_refusals(line: str, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        found = main(line.split())
    except SystemExit as ended:
        found = int(str(ended.code))
    err = capsys.readouterr().err
    assert (found, err.count("livedump: error: ")) == (code, 1), err
    assert said in err
    assert not os.path.exists("page")


def test_a_filtered_one_cannot_be_compared(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_filtered(dump.parent / "filtered")
    assert main(["report", "filtered", "-o", "page", "--against", "dump"]) == 2
    assert "makedumpfile has left pages out" in capsys.readouterr().err
    assert main(["report", "dump", "-o", "page", "--against", "filtered"]) == 3


def test_the_dump_stays_as_it_is_and_a_page_too(dump: Path) -> None:
    before = dump.read_bytes()
    assert main(["report", "dump", "-o", "page"]) == 0
    page = Path("page").read_bytes()
    assert main(["report", "dump", "-o", "page"]) == 1
    assert (dump.read_bytes(), Path("page").read_bytes()) == (before, page)


def test_tasks_that_were_asked_for_and_are_not_there(
    dump: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line says so, and the page is written all the same."""
    assert main(["report", "dump", "-o", "page", "--vmlinux", "/no/where"]) == 0
    said = capsys.readouterr().err
    assert said == "livedump: no tasks: No Linux: the dump has no VMCOREINFO.\n"
    assert Path("page").exists()


def test_to_a_pipe(dump: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "livedumpfs.cli", "report", str(dump), "-o", "-"],
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert parse(done.stdout.decode()).one("h1").text == "test"


def test_a_full_disk_leaves_no_page(dump: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "livedumpfs.cli", "report", str(dump), "-o", "-"],
            stdout=full, stderr=subprocess.PIPE, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
