# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command prints decides over nothing: each with outputs that are closed, full, left by
their reader, not blocking, in another encoding, or a terminal that goes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Commands, commands, needs_fuse, wait_for

from livedumpfs.abi import State
from livedumpfs.dumpfile import open_dump
from livedumpfs.formats.table import LOST, SAVED

MEMORY = bytes(range(256)) * 256
REDIRECTIONS = (">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", ">/dev/full 2>&1")
CYRILLIC = "\u0442"
"""In UTF-8 its second byte is a control character to Latin-1."""


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, write_dump: Callable[..., Any]
) -> Iterator[Commands]:
    """Where dumps lie: good, same, and torn."""
    folder = tmp_path_factory.mktemp("output")
    for name in ("good", "same"):
        write_dump(folder / name, MEMORY)
    states = [SAVED] * 15 + [LOST]
    write_dump(folder / "torn", MEMORY, states=states, verdict="torn")
    with commands(folder) as some:
        yield some


def codes(some: Commands, lines: dict[str, int], **how: Any) -> None:
    """Each must end as it says."""
    assert some.run_all(*lines, **how)[0] == lines


@pytest.mark.parametrize("redirect", REDIRECTIONS)
def test_of_finished_dumps(redirect: str, finished: Commands) -> None:
    """The verdict counts; only what a program was to read is missed."""
    (finished.folder / "out").unlink(missing_ok=True)
    missed = 1 if redirect != "2>&-" else 0
    codes(
        finished,
        {
            "info good": 0, "info -v torn": 3, "verify good": 0, "verify torn": 3,
            "compare good same": 0, "compare good torn": 1, "convert good out": 0,
            "--help": 0, "--version": 0, "info": 2, "info /no/where": 1,
            "verify --json good": missed, "info --json good": missed, "info --json torn": 3,
            "convert good - --format raw": missed,
        },
        redirect=redirect,
    )  # fmt: skip
    with open_dump(finished.folder / "out") as dump:
        assert dump.verdict == "consistent"


def test_the_reader_leaves(finished: Commands) -> None:
    """As `| head -1` does."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        codes(
            finished,
            {
                "info good": 0, "verify good": 0, "verify torn": 3, "compare good torn": 1,
                "--help": 0, "verify --json good": 1, "verify --json torn": 3,
            },
            stdout=writer, stderr=writer,
        )  # fmt: skip
    finally:
        os.close(writer)


def test_a_full_disk_is_named(finished: Commands) -> None:
    sentence = "cannot write to standard output: No space left on device\n"
    assert finished.run("info", "good", redirect=">/dev/full") == (0, "", f"livedump: {sentence}")
    code, _, err = finished.run("info", "--json", "good", redirect=">/dev/full")
    assert (code, err) == (1, f"livedump: error: {sentence}")


def test_nothing_else_gets_the_number_of_a_closed_output(finished: Commands) -> None:
    """Else what is printed would be written into the file that was opened next."""
    good = (finished.folder / "good").read_bytes()
    (finished.folder / "new").unlink(missing_ok=True)
    codes(finished, {"convert torn new": 0, "verify good": 0}, redirect=">&- 2>&- <&-")
    assert (finished.folder / "good").read_bytes() == good
    codes(finished, {"compare torn new": 1})
    with open_dump(finished.folder / "new") as new, open_dump(finished.folder / "torn") as torn:
        assert new.state_counts() == torn.state_counts()


def test_all_of_it_arrives_where_writing_does_not_block(
    write_dump: Callable[..., Any], finished: Commands
) -> None:
    """A pipe that holds one page and is read slowly."""
    write_dump(
        finished.folder / "striped", MEMORY, states=[SAVED, LOST] * 8, verdict="torn", force=True
    )
    expected = finished.run("info", "--json", "striped")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, bytes(1 << 16))
    try:
        process = finished.begin("info", "--json", "striped", stdout=writer)
    finally:
        os.close(writer)
    shown = b""
    while piece := os.read(reader, 512):
        shown += piece
    os.close(reader)
    assert (process.wait(300), shown[1 << 16 :].decode()) == (3, expected[1])


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A locale that is not UTF-8."""
    folder = tmp_path_factory.mktemp("locale")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / "de_DE.ISO-8859-1"],
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    if made.returncode > 1:  # 1: with warnings
        pytest.skip(f"localedef cannot make a locale: {made.stderr!r}")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1"}


NAMES = {CYRILLIC: r"\u0442", "a\x1b[31m": r"a\x1b[31m", "b\udcff": r"b\xff", "\xe9": r"\xe9"}
"""Files, and how a terminal sees them that shows nothing but ASCII."""


def test_what_an_encoding_does_not_have_is_escaped(
    finished: Commands, write_dump: Callable[..., Any]
) -> None:
    for name in NAMES:
        write_dump(finished.folder / name, MEMORY)
    lines = {f"verify {name}": 0 for name in NAMES}
    for env in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-8"}):
        ended, out, _ = finished.run_all(*lines, env=env)
        assert ended == lines
        for name, shown in NAMES.items():
            plain = "ascii" in env.values() or not name.isprintable()
            assert f"dump        {shown if plain else name}\n" in out
    assert json.loads(finished.run("info", "--json", "b\udcff")[1])["path"] == "b\udcff"


def test_in_latin_1(finished: Commands, latin: dict[str, str]) -> None:
    """That letter is two there, the second a control character."""
    code, _, err = finished.run("verify", f"/no/{CYRILLIC}", env=latin)
    assert (code, err.encode(errors="surrogateescape").decode("latin-1")) == (
        1, "livedump: error: cannot read dump /no/\xd1\\x82: No such file or directory\n"
    )  # fmt: skip
    assert finished.run("verify", "torn", env=latin)[0] == 3


# ------------------------------------------------------------------------- beside a host


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with commands(tmp_path_factory.mktemp("live")) as some:
        some.host("--ram", "8M", "--idle")
        yield some


@needs_fuse
@pytest.mark.parametrize("redirect", REDIRECTIONS)
def test_a_dump(redirect: str, live: Commands) -> None:
    """What is done to machine and dump is the same."""
    for target in live.folder.glob("d*.elf"):
        target.unlink()
    missed = 1 if redirect != "2>&-" else 0
    lines = {
        "dump d.elf": 0, "init d2.elf": 0, "start": 0, "sweep": 0, "finish": 0, "status": 0,
        "status --json": missed, "release": 0, "sweep ": 1,
    }  # fmt: skip
    codes(live, lines, redirect=redirect)
    for name in ("d.elf", "d2.elf"):
        with open_dump(live.folder / name) as dump:
            assert dump.verdict == "consistent"
    assert live.state() is State.UNINIT


@needs_fuse
def test_a_dump_in_latin_1(live: Commands, latin: dict[str, str]) -> None:
    name = f"{CYRILLIC}.elf"
    codes(live, {f"dump {name}": 0, f"verify {name}": 0, "status": 0}, env=latin)
    with open_dump(live.folder / name) as dump:
        assert dump.verdict == "consistent"


@needs_fuse
def test_a_terminal_that_goes_away(live: Commands) -> None:
    """In the middle of the bar: writing gives EIO from then on."""
    ours, theirs = pty.openpty()
    process = live.begin("dump", "y.elf", "--sweep-rate", "8M", stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    assert process.wait(300) == 0
    with open_dump(live.folder / "y.elf") as dump:
        assert dump.verdict == "consistent"


@needs_fuse
def test_the_bar_in_binary_units(live: Commands) -> None:
    ours, theirs = pty.openpty()
    process = live.begin("dump", "bar.elf", "--sweep-rate", "16M", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass  # EIO: it has ended
    os.close(ours)
    assert process.wait(300) == 0
    assert b"iB/s" in shown and b"MB/s" not in shown and b"kB/s" not in shown


@needs_fuse
def test_a_host_without_outputs(tmp_path: Path) -> None:
    with commands(tmp_path) as some:
        mount = tmp_path / "mount"
        mount.mkdir()
        process = some.begin(
            "host", "--ram", "4M", "--idle", "--mount", mount, redirect=">&- 2>&- <&-",
            stdout=None, stderr=None,
        )  # fmt: skip
        wait_for((mount / "livedump").exists, process.poll)
        assert some.run("dump", "d.elf", "--device", mount)[0] == 0
        process.terminate()
        assert process.wait(300) == 0
