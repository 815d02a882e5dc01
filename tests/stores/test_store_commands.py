# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands on a store, as they are typed."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from livedumpfs.cli.main import main
from livedumpfs.stores import create_store, open_store
from tests.fixtures.shells import Shell, one_error
from tests.fixtures.small_stores import BEGAN, HOUR, chunk_file, keep_file
from tests.fixtures.written_dumps import DumpWriter
from tests.stores.stored_dumps import CHANGED, CHUNK, MACHINE, MEMORY, OTHER, PAGE

CHANGED_CHUNKS = len({page * PAGE // CHUNK for page in CHANGED})


class Here:
    """Runs commands in this process: a store needs no other."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        """Run a command, whose exit code must be `code`: (standard output, standard error)."""
        self._capsys.readouterr()
        try:
            found = main(words)
        except SystemExit as end:
            found = int(str(end.code))
        out, err = self._capsys.readouterr()
        assert found == code, f"livedump {' '.join(words)}:\n{out}{err}"
        return out, err

    def fails(self, *words: str, code: int = 1) -> str:
        """Run a command that must fail with one sentence; the sentence."""
        out, err = self.run(*words, code=code)
        return one_error(out, err)


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    monkeypatch.chdir(tmp_path)
    return Here(tmp_path, capsys)


@pytest.fixture(autouse=True)
def made(here: Here, write_dump: DumpWriter) -> None:
    """Files `a` and `b`, and a store `s` that has them."""
    with create_store(str(here.folder / "s")) as store:
        for number, (name, memory) in enumerate((("a", MEMORY), ("b", OTHER))):
            path = here.folder / name
            write_dump(
                path, memory, granule=CHUNK, machine=MACHINE,
                meta={"instant": {"wall_ns": BEGAN + number * HOUR}},
            )  # fmt: skip
            keep_file(store, path, name, instant_ns=BEGAN + number * HOUR)


def test_list(here: Here) -> None:
    out, err = here.run("list", "s")
    head, *rows, sums = out.splitlines()
    assert head.split() == ["dump", "taken", "machine", "verdict", "size", "new", "since"]
    assert [row.split()[0] for row in rows] == ["a", "b"] and err == ""
    assert all(" test@here  consistent  " in row for row in rows)
    assert sums.startswith("2 dumps of 3.125 MiB in ") and sums.endswith(" times less")
    told = json.loads(here.run("list", "store:s", "--json")[0])
    assert [one["name"] for one in told["dumps"]] == ["a", "b"]
    assert told["dumps"][1]["new_bytes"] < told["dumps"][0]["new_bytes"]
    assert told["totals"]["dumps"] == 2 and 1.5 < told["totals"]["ratio"] < 6
    assert told["totals"]["image_bytes"] == sum(one["image_size"] for one in told["dumps"])


def test_list_with_what_is_damaged_or_foreign(here: Here) -> None:
    (here.folder / "s/a.json").write_text("no")
    (here.folder / "s/b.json").unlink()
    out, err = here.run("list", "s")
    assert [row.split()[3:5] for row in out.splitlines()[1:3]] == [["-", "unknown"]] * 2
    assert "s/a.json is damaged: it is not JSON" in err
    assert "no dumps" not in here.run("list", "s", "--json")[0]


def test_list_shows_any_name_harmlessly(here: Here) -> None:
    """Names of machines and of files may be another user's, and no text."""
    with open_store(str(here.folder / "s")) as store:
        keep_file(store, here.folder / "a", "c", machine="\x1b[31m\udcff", host="\u202eh")
    (here.folder / "s/\x1b]0;x.caibx").write_bytes((here.folder / "s/a.caibx").read_bytes())
    out, _ = here.run("list", "s")
    assert r"\x1b[31m\xff@\u202eh" in out and r"\x1b]0;x" in out and "\x1b" not in out
    told = json.loads(here.run("list", "s", "--json")[0])
    assert "\x1b[31m\udcff" in [one.get("machine") for one in told["dumps"]]
    assert "\x1b" not in here.run("verify", "s")[0]
    assert "\x1b" not in here.run("forget", "s", "--keep-last", "9")[0]


def test_no_store(here: Here) -> None:
    for words in (["list"], ["gc"], ["forget", "--keep-last", "1"]):
        assert "nothing" in here.fails(*words, "nothing")
    (here.folder / "bad").mkdir()
    (here.folder / "bad/livedumpfs.json").write_text("{")
    assert "bad is no valid store: its livedumpfs.json" in here.fails("list", "bad", code=3)
    (here.folder / "bad/livedumpfs.json").write_text('{"version": 99}')
    assert "a newer livedumpfs is needed" in here.fails("info", "bad#latest", code=3)


def test_info_verify_compare_convert(here: Here) -> None:
    assert here.run("info", "s#a")[0].splitlines()[0].endswith("s#a")
    assert "none of them is named" in here.fails("info", "s", code=2)
    assert "checked  " in here.run("verify", "store:s#b")[0].replace("   ", " ")
    here.run("compare", "s#a", "a")
    pages = f"different        {len(CHANGED)} pages"
    assert pages in here.run("compare", "s#a", "s#latest", code=1)[0]
    here.run("convert", "s#a", "back", "--format", "raw")
    here.run("convert", "a", "there", "--format", "raw")
    assert filecmp.cmp(here.folder / "back", here.folder / "there", shallow=False)


def test_verify_of_a_store(here: Here) -> None:
    out, _ = here.run("verify", "s")
    assert [line.split() for line in out.splitlines()[:2]] == [
        ["a", "consistent"], ["b", "consistent"],
    ]  # fmt: skip
    with open_store(str(here.folder / "s")) as store:
        identity = store.index("b").id(len(store.index("b")) - 1)
        chunk_file(store, identity).unlink()
    error = here.fails("verify", "s", code=3)
    assert error.endswith("s: b: 1 chunk is damaged or missing: pages 0xf0-0xff are lost")
    told = json.loads(here.run("verify", "s", "--json", code=3)[0])
    assert not told["ok"]
    assert [one["lost_pages"] for one in told["dumps"]] == [[], [[240, 256]]]
    assert list(told["dumps"][1]["wrong_chunks"]) == [identity.hex()]
    assert "cannot be read" in here.fails("verify", "s#b", code=3)


def test_forget_and_gc(here: Here) -> None:
    assert "nothing says which dumps" in here.fails("forget", "s", code=2)
    assert "either dumps" in here.fails("forget", "s", "a", "--keep-last", "1", code=2)
    assert "no dump 'c'" in here.fails("forget", "s", "a", "c")
    assert "not a time" in here.fails("forget", "s", "--keep-within", "x", code=2)
    with open_store(str(here.folder / "s")) as store:
        gone = len(store.index("a").unique() - store.index("b").unique())
    assert gone >= CHANGED_CHUNKS
    out, _ = here.run("forget", "s", "--keep-last", "1", "--dry-run")
    assert out == "a  would be forgotten\nb  kept: last\n"
    assert len(here.run("list", "s")[0].splitlines()) == 4
    out, _ = here.run("forget", "s", "--keep-last", "1", "--keep-hourly", "1")
    assert out == "a  forgotten\nb  kept: last, hourly\n"
    assert "of no dump" not in here.run("gc", "s", "--dry-run")[0]
    assert here.run("gc", "s")[0].startswith(f"removed {gone} chunks of ")
    assert here.run("gc", "s")[0].startswith("removed 0 chunks of 0 B; ")
    here.run("compare", "s#b", "b")
    out, err = here.run("forget", "s", "latest")
    assert out == "b  forgotten\n" and "livedump gc s" in err
    here.run("gc", "s")
    assert here.run("list", "s")[0] == "0 dumps of 0 B in 0 chunks of 0 B\n"


def test_a_dump_under_way_keeps_them_out(here: Here) -> None:
    with open_store(str(here.folder / "s")) as store, store.lock():
        for words in (["gc", "s"], ["forget", "s", "a"], ["forget", "s", "--keep-last", "1"]):
            assert "is in use by a dump" in here.fails(*words)
        here.run("verify", "s")
        here.run("convert", "a", "s")


def test_gc_says_what_is_missing(here: Here) -> None:
    with open_store(str(here.folder / "s")) as store:
        chunk_file(store, store.index("a").id(2)).unlink()
    assert "1 chunk is missing that its dumps need" in here.fails("gc", "s", code=3)


def test_convert_into_a_store(here: Here, write_dump: DumpWriter) -> None:
    """A new one, and one with such a dump in it; from each format; and what is refused."""
    out, err = here.run("convert", "a", "store:new")
    assert "made the store new" in err
    name = out.split()[1]
    assert name.startswith("20260921T141320Z-")
    here.run("compare", "a", f"new#{name}")
    write_dump(
        here.folder / "k", OTHER, granule=PAGE, machine=MACHINE, format="kdump", verdict="torn",
        meta={"instant": {"wall_ns": BEGAN + HOUR}},
    )  # fmt: skip
    out, err = here.run("convert", "k", "new")
    assert "k is torn; 0 missing pages stay missing" in err
    added = next(line for line in out.splitlines() if line.startswith("store"))
    assert CHANGED_CHUNKS < int(added.split()[1]) < 10  # changed pages, and its head
    assert here.run("verify", "new")[0].count("torn") == 1
    assert "is torn" in here.fails("info", "new#latest", code=3)
    for words in (["--format", "kdump"], ["--format", "raw", "--table", "tail"]):
        assert "format elf" in here.fails("convert", "a", "new", *words, code=2)
    (here.folder / "full").mkdir()
    (here.folder / "full/file").touch()
    assert "not empty" in here.fails("convert", "a", "store:full")


@pytest.mark.skipif(not shutil.which("gdb"), reason="needs gdb")
def test_mount(shell: Shell) -> None:
    """Read by the kernel and by gdb."""
    place = shell.folder / "m"
    place.mkdir()
    process = shell.begin("mount", "s#b", str(place))
    assert process.stdout and process.stdout.readline() == f"snapshot {place}/snapshot\n"
    shell.run("convert", "b", "raw", "--format", "raw")
    assert filecmp.cmp(place / "snapshot/mem.raw", shell.folder / "raw", shallow=False)
    done = subprocess.run(
        ["gdb", "-batch", "-nx", "-core", str(place / "snapshot/vmcore"), "-ex", "x/2xb 0x3000"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    value = CHANGED[0] % 251 + 1
    assert f"0x3000:\t{value:#04x}\t{value:#04x}" in done.stdout, done
    process.terminate()
    assert process.wait(timeout=300) == 0
