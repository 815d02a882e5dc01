# SPDX-License-Identifier: GPL-2.0-or-later
"""`--exclude`: its names and numbers, what is refused before any host is asked, and what is made of
makedumpfile's words."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import pytest

from livedumpfs.cli.exclude import KINDS, level
from livedumpfs.cli.main import main
from livedumpfs.cli.makedumpfile import FilterError, Makedumpfile, MakedumpfileRun
from livedumpfs.dumpfile import NewFiltered, excluded_text, has_vmcoreinfo, open_filtered
from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import MachineInfo, elf
from livedumpfs.formats.note import VMCOREINFO, Note
from livedumpfs.formats.superblock import VERDICTS, VerdictWord
from tests.fixtures.makedumpfiles import PAGES, odd_makedumpfile, small_filtered, small_kdump

TOP = Path(__file__).resolve().parents[2]
DEADLINE_S = 300.0
DEBIAN = "printf 'makedumpfile: version 1.7.2\\nlzo\\tenabled\\nsnappy\\tdisabled\\n'"
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _no_host(monkeypatch: Patch, tmp_path: Path) -> None:
    """A command that gets as far as a host says another sentence."""
    monkeypatch.setenv("LIVEDUMP_DEVICE", str(tmp_path / "no host"))


def behave(monkeypatch: Patch, folder: Path, does: str = "false", says: str = DEBIAN) -> None:
    for name, value in odd_makedumpfile(folder, does, says).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *KINDS.items(),
        ("zero,cache,user,free", 27),
        ("cache,all-cache", 6),
        ("free,free", 16),
        ("all,zero", 31),
        ("1", 1),
        ("31", 31),
    ],
)
def test_names_and_levels(text: str, found: int) -> None:
    assert level(text) == found


@pytest.mark.parametrize(
    "text", ["", "0", "32", "-1", "1,2", "zero,", "zero cache", "ZERO", "0x1f", "hwpoison", "1.0"]
)
def test_other_words_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no kind of pages: ") as caught:
        level(text)
    assert "\n" not in str(caught.value) and all(name in str(caught.value) for name in KINDS)


def test_the_document_has_each_name_and_level() -> None:
    text = (TOP / "docs" / "cli.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+) \|", text, re.MULTILINE)
    assert {name: int(number) for name, number in rows if name in KINDS} == KINDS


REFUSED = {
    "--sweep-rate 1M": "--sweep-rate does not go with --exclude",
    "--buffered": "--buffered does not go with --exclude",
    "--table tail": "--table does not go with --exclude",
    "--level 3": "--level does not go with --exclude",
    "--threads 2": "--threads does not go with --exclude",
    "--format elf": "makedumpfile writes a kdump here, not elf",
    "--format raw": "makedumpfile writes a kdump here, not raw",
    "--hold": "--hold does not go with --exclude: makedumpfile has read all it needs",
    "--keep 2": "there is no {date} in the name of ",
    "--compress zstd": "makedumpfile 1.7.2 here was built without zstd (it has lzo, zlib, none)",
}


@pytest.mark.parametrize("words", REFUSED)
def test_options_that_do_not_go_with_it(
    monkeypatch: Patch, tmp_path: Path, capsys: Capture, words: str
) -> None:
    behave(monkeypatch, tmp_path)
    target = tmp_path / "dump"
    assert main(["dump", "--exclude", "zero", *words.split(), str(target)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"livedump: error: {REFUSED[words]}") and error.count("\n") == 1, error
    assert not list(tmp_path.glob("dump*"))


def test_it_needs_a_target(capsys: Capture) -> None:
    assert main(["dump", "--exclude", "zero"]) == 2
    assert "--exclude needs TARGET (a file, or - for standard output)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_target_that_makedumpfile_cannot_seek_in(
    monkeypatch: Patch, tmp_path: Path, capsys: Capture, kind: str
) -> None:
    behave(monkeypatch, tmp_path)
    target = Path("/dev/null") if kind == "device" else tmp_path / "fifo"
    if kind == "fifo":
        os.mkfifo(target)
    assert main(["dump", "--exclude", "zero", str(target)]) in (1, 2)
    error = capsys.readouterr().err
    assert str(target) in error and error.count("\n") == 1, error
    assert "no host" not in error


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("echo 'cat (GNU coreutils) 9.1'", "does not say its version"),
        ("kill -KILL $$", "does not say its version"),
    ],
)
def test_what_is_no_makedumpfile(
    monkeypatch: Patch, tmp_path: Path, says: str, sentence: str
) -> None:
    behave(monkeypatch, tmp_path, says=says)
    with pytest.raises(FilterError, match=sentence):
        Makedumpfile()


def test_one_that_cannot_be_run(monkeypatch: Patch, tmp_path: Path, capsys: Capture) -> None:
    behave(monkeypatch, tmp_path)
    (tmp_path / "bin" / "makedumpfile").write_bytes(b"\x7fELF")
    assert main(["dump", "--exclude", "zero", str(tmp_path / "dump")]) == 1
    place = tmp_path / "bin" / "makedumpfile"
    assert capsys.readouterr().err == f"livedump: error: cannot run {place}: Exec format error\n"


def test_none_at_all(monkeypatch: Patch, tmp_path: Path, capsys: Capture) -> None:
    monkeypatch.setattr("livedumpfs.cli.makedumpfile.shutil.which", lambda name, path: None)
    assert main(["dump", "--exclude", "zero", str(tmp_path / "dump")]) == 1
    words = "livedump: error: makedumpfile is not installed (apt install makedumpfile)\n"
    assert capsys.readouterr().err == words
    assert not list(tmp_path.glob("dump*"))


def test_the_best_compression_that_it_has(monkeypatch: Patch, tmp_path: Path) -> None:
    for words, best in (("zstd\\tenabled\\nlzo\\tenabled", "-z"), ("lzo\\tdisabled", "-c")):
        behave(monkeypatch, tmp_path, says=f"printf 'makedumpfile: version 1.7.4\\n{words}\\n'")
        program = Makedumpfile()
        assert (program.version, program.compression("")) == ("1.7.4", best)
        assert (program.compression("zlib"), program.compression("none")) == ("-c", "")
        with pytest.raises(UsageError, match="was built without snappy"):
            program.compression("snappy")


def ended(monkeypatch: Patch, folder: Path, does: str) -> MakedumpfileRun:
    """A run of it, until its end."""
    behave(monkeypatch, folder, does)
    with open(folder / "out", "wb") as out:
        run = MakedumpfileRun(Makedumpfile(), 27, "-l", str(folder / "core"), out.fileno())
        assert run.wait(DEADLINE_S)
    run.reap()
    return run


def test_what_it_is_told(monkeypatch: Patch, tmp_path: Path) -> None:
    run = ended(monkeypatch, tmp_path, 'echo "$LC_ALL $@" > $out')
    assert run.problem("dump") == ""
    words = (tmp_path / "out").read_text().split()
    assert words[:-1] == ["C", "--message-level", "23", "-d", "27", "-l", "-f", f"{tmp_path}/core"]
    assert words[-1].startswith("/proc/self/fd/")


def test_progress_and_what_was_left_out(monkeypatch: Patch, tmp_path: Path) -> None:
    """Its words of 1.7.2. Progress ends with \\r, and other words may follow it."""
    run = ended(
        monkeypatch,
        tmp_path,
        "printf 'The kernel version is not supported.\\n"
        "\\rExcluding unnecessary pages         : [ 99.0 %%] /\\r"
        "\\rCopying data     : [ 25.5 %%] -  eta: 3s\\r"
        "\\n\\nOriginal pages  : 0x000000000000000e\\n"
        "  Excluded pages   : 0x0000000000000009\\n"
        "    Pages filled with zero  : 0x0000000000000007\\n"
        "    Private cache pages     : 0x0000000000000002\\n'",
    )
    assert run.share == 0.255 and not run.knows_kernel
    assert run.excluded == {"of": 14, "all": 9, "zero": 7, "private cache": 2}
    said = excluded_text(27, run.excluded)
    assert said == "makedumpfile -d 27, 9 of 14 pages: zero 7, private cache 2"


@pytest.mark.parametrize(
    ("does", "sentence"),
    [
        ("exit 5", "makedumpfile failed: exit status 5"),
        ("echo No space left in $out.; echo makedumpfile Failed.; exit 1",
         "makedumpfile failed: No space left in /dumps/vm."),
        ("printf '\\rCopying data : [ 1.0 %%] |'; echo gone >&2; exit 1",
         "makedumpfile failed: gone"),
        ("kill -SEGV $$", "makedumpfile was ended by SIGSEGV"),
        ("yes x | head -c 300000; echo last; exit 1", "makedumpfile failed: last"),
    ],
)  # fmt: skip
def test_why_it_failed(monkeypatch: Patch, tmp_path: Path, does: str, sentence: str) -> None:
    assert ended(monkeypatch, tmp_path, does).problem("/dumps/vm") == sentence


def test_one_that_is_ended_is_gone(monkeypatch: Patch, tmp_path: Path) -> None:
    behave(monkeypatch, tmp_path, "exec sleep 1000")
    run = MakedumpfileRun(Makedumpfile(), 1, "", str(tmp_path), -1)
    assert not run.wait(0.01)
    run.reap()
    assert run.problem("dump") == "makedumpfile was ended by SIGKILL"


DAMAGES = {
    "it has no kdump header": lambda data: b"\0" * len(data),
    "it ends within its kdump header": lambda data: data[:4100],
    "it ends within its": lambda data: data[:9000],
    "it is cut off": lambda data: data[:-1],
    "dump level 3, not 1": lambda data: small_kdump(3),
    "is incomplete": lambda data: data[:424] + bytes([data[424] | 8]) + data[425:],
}


@pytest.mark.parametrize("sentence", DAMAGES)
def test_what_is_no_whole_kdump_is_not_sealed(tmp_path: Path, sentence: str) -> None:
    with NewFiltered(str(tmp_path / "dump"), force=False) as file:
        os.pwrite(file.begin(), DAMAGES[sentence](small_kdump()), 0)
        with pytest.raises(InvalidDump, match=sentence):
            file.seal(1, "consistent", {}, arena_size=PAGES * 4096, granule_size=4096)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_is_told(tmp_path: Path, capsys: Capture, verdict: VerdictWord) -> None:
    """An incomplete one has not got its name."""
    pages = {"of": PAGES, "all": 7, "zero": 7}
    small_filtered(tmp_path / "dump", verdict, excluded=pages)
    (place,) = tmp_path.iterdir()
    assert place.name == ("dump.incomplete" if verdict == "incomplete" else "dump")
    good = verdict == "consistent"
    for command in ("info", "verify"):
        assert main([command, str(place)]) == (0 if good else 3)
        out, error = capsys.readouterr()
        assert re.search(rf"^verdict +{verdict}$", out, re.MULTILINE)
        assert "makedumpfile -d 1, 7 of 14 pages: zero 7" in out
        assert error.count("livedump: error: ") == (not good)


def test_another_kdump_is_none(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(small_kdump())
    assert open_filtered(str(tmp_path / "dump")) is None


@pytest.mark.parametrize(("name", "has"), [(VMCOREINFO, True), (b"QEMU\0", False)])
def test_a_core_with_vmcoreinfo(tmp_path: Path, name: bytes, has: bool) -> None:
    note = Note(name, 0, b"OSRELEASE=6.1\n" * 50).pack()
    machine = MachineInfo("engine", vcpus=1)
    place = elf.headers_size(0)
    head = elf.core_headers(machine, (place, len(note)), 8192, [])
    (tmp_path / "core").write_bytes(head.ljust(place, b"\0") + note)
    assert has_vmcoreinfo(str(tmp_path / "core")) is has
    (tmp_path / "core").write_bytes(b"no core")
    assert not has_vmcoreinfo(str(tmp_path / "core"))
