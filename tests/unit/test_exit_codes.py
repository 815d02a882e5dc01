# SPDX-License-Identifier: GPL-2.0-or-later
"""All ways in which a command ends without a host, and its exit code: the table of docs/cli.md."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import end, one_sentence

from livedumpfs.cli import main as cli
from livedumpfs.cli.outcome import Exit, Interrupted
from livedumpfs.formats.table import LOST, SAVED
from livedumpfs.stores import create_store
from tests.fixtures.small_stores import keep_file

TOP = Path(__file__).resolve().parents[2]
GRANULE = 4096
MEMORY = bytes(range(256)) * (8 * GRANULE // 256)
OF_A_HOST = (
    "dump x",
    "init x",
    "start",
    "sweep",
    "finish",
    "release",
    "uninit",
    "status",
    "hold",
    "arm",
    "go",
    "console",
)
OF_A_DUMP = (
    *("info {}", "verify {}", "mount {} dir", "convert {} out", "compare {} {}", "linux {}"),
    "report {} -o out",
)
OF_A_STORE = ("list {}", "forget {} --keep-last 1", "gc {}")
OF_A_FLEET = ("fleet list {}", "fleet show {}")
OWN = ("host", "qemu", "attach x", "doctor", "completion bash", "watch")
ALL = (*OF_A_HOST, *OF_A_DUMP, *OF_A_STORE, *OF_A_FLEET, *OWN)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write_dump: Callable[..., Any]) -> Path:
    """A folder with a dump of each kind."""
    folder = tmp_path_factory.mktemp("dumps")
    states = [SAVED] * 7 + [LOST]
    write_dump(folder / "good", MEMORY, granule=GRANULE)
    write_dump(folder / "same", MEMORY, granule=GRANULE)
    write_dump(folder / "other", MEMORY[::-1], granule=GRANULE)
    write_dump(folder / "torn", MEMORY, granule=GRANULE, states=states, verdict="torn")
    write_dump(folder / "open", MEMORY, granule=GRANULE, until="started")
    write_dump(folder / "rotten", MEMORY, granule=GRANULE)
    with open(folder / "rotten", "r+b") as file:
        file.seek(file.read().index(MEMORY[:GRANULE]) + 5)
        file.write(b"!")
    (folder / "letter").write_text("Dear reader,\n" * 1000)
    (folder / "dir").mkdir()
    with create_store(str(folder / "store")) as store:
        keep_file(store, folder / "good", "one")
    (folder / "broken").mkdir()
    (folder / "broken/livedumpfs.json").write_text("Dear reader")
    return folder


@pytest.fixture
def dumps(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It, as working directory."""
    (made / "out").unlink(missing_ok=True)
    monkeypatch.chdir(made)
    return made


WAYS = [
    ("info good", 0), ("verify good", 0), ("compare good same", 0), ("convert good out", 0),
    ("info -v good", 0), ("info --json good", 0), ("--version", 0), ("--help", 0),
    *[(f"info {one}", 3) for one in ("torn", "open", "letter")],
    *[(f"verify {one}", 3) for one in ("torn", "open", "letter", "rotten")],
    *[(f"verify --json {one}", 3) for one in ("torn", "rotten")],
    ("info rotten", 0),  # it does not read the memory
    ("convert torn out", 0), ("convert open out", 0),
    ("convert torn out --format raw", 3), ("convert torn out --format raw --force", 0),
    ("convert good out --format raw --level 3", 2), ("convert good good", 1),
    ("convert good /no/where/out", 1), ("convert good - --format flat --table tail", 2),
    ("compare good other", 1), ("compare good torn", 1), ("compare good nosuch", 2),
    ("compare good letter", 3), ("compare good", 2),
    ("report good -o out", 0), ("report torn -o out", 3), ("report rotten -o out", 0),
    ("report good -o good", 1), ("report good", 2), ("report good -o out --device x", 2),
    ("mount good /no/where", 1), ("mount letter dir", 3),
    *[(one.format(*["/no/where"] * 2), 1) for one in OF_A_DUMP if "compare" not in one],
    *[(one.format(*["letter"] * 2), 3) for one in OF_A_DUMP],
    *[(f"{one} --device /no/where/livedump", 1) for one in OF_A_HOST],
    *[(f"{one} --device /dev/null", 1) for one in OF_A_HOST],
    *[(f"{one.format('good', 'same')} --no-such-option", 2) for one in (*OF_A_HOST, *OF_A_DUMP)],
    ("host --no-such-option", 2), ("host --vcpus 9", 2), ("host --ram 4K", 2),
    ("host --longest-hold 61", 2), ("host --longest-hold nan", 2),
    ("host --metrics localhost:9105", 2), ("host --metrics 65536", 2), ("host --log file", 2),
    ("host --group no:such", 2), ("host --ram 1M", 2), ("qemu", 2),
    ("qemu --mount dir", 2), ("nosuch", 2), ("", 2), ("start --max-age 3s", 2), ("dump a b", 2),
    ("attach", 2), ("attach /no/where", 1), ("attach /no/where --check", 1),
    ("attach x --pool x", 2), ("attach x --libvirt y", 2),
    ("dump --attach x --libvirt y", 2), ("dump x --attach /no/where --device y", 2),
    ("dump x --format elf --level 3", 2), ("init x --no-target", 2), ("finish --timeout 0", 2),
    *[(one.format("store"), 0) for one in OF_A_STORE], ("verify store", 0), ("info store#one", 0),
    *[(one.format("/no/where"), 1) for one in OF_A_STORE], ("info store#two", 1),
    *[(one.format("letter"), 1) for one in OF_A_STORE], ("info store", 2), ("forget store", 2),
    *[(one.format("broken"), 3) for one in OF_A_STORE], ("verify broken", 3),
    *[(f"{one.format('store')} --no-such-option", 2) for one in OF_A_STORE],
    ("fleet list dir", 0), ("fleet list /no/where", 1), ("fleet show /no/where", 1),
    ("fleet show letter", 3), ("fleet", 2), ("fleet show", 2), ("fleet map diff letter", 2),
    ("fleet map /no/where letter", 3), ("fleet members", 2), ("fleet worker", 2),
    ("doctor --for x", 2), ("completion", 2), ("completion sh", 2), ("completion zsh", 0),
    ("watch", 2),
    ("forget store one --keep-last 1", 2), ("forget store two", 1), ("convert good store", 0),
    ("convert torn store", 0), ("convert good store --format kdump", 2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code"), dict(WAYS).items(), ids=[w[0] for w in dict(WAYS).items()]
)
def test_the_end_of(line: str, code: int, dumps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert end(line) == code, capsys.readouterr().err
    err = capsys.readouterr().err
    # compare says it in what it prints.
    if code and not line.startswith("compare good"):
        assert "livedump: error: " in err
    assert code or "error" not in err


def test_each_command_has_its_ways() -> None:
    parser = cli.build_parser()
    names = next(
        set(one.choices) for one in parser._actions if isinstance(one, argparse._SubParsersAction)
    )
    assert {line.split()[0] for line in ALL} == names
    for code in (Exit.FAILED, Exit.USAGE):
        tried = {line.split()[0] for line, expected in WAYS if line and expected == code}
        # A host that cannot be mounted leaves by os._exit: below. test_doctor.py has a computer
        # that lacks something; only a missing package stops completion; test_watch_session.py has
        # a terminal.
        elsewhere = (
            {"host", "qemu", "doctor", "completion", "watch"} if code == Exit.FAILED else set()
        )
        assert names - tried <= elsewhere, f"nothing ends with {int(code)}"


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(signal.SIGTERM), 143, "ended by SIGTERM"),
        (Interrupted(signal.SIGHUP), 129, "ended by SIGHUP"),
        (MemoryError(), 1, "not enough memory"),
        (ModuleNotFoundError("x", name="qemu.qmp"), 1, "the Python package qemu.qmp"),
    ],
    ids=lambda one: str(one) if isinstance(one, int) else "",
)
def test_interrupted(
    raised: BaseException, code: int, said: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Wherever it is: each command comes through main()."""

    def interrupt(args: argparse.Namespace) -> int:
        raise raised

    monkeypatch.setattr(argparse.Namespace, "run", property(lambda self: interrupt), raising=False)
    monkeypatch.setattr(argparse.Namespace, "__setattr__", lambda *_: None)
    for line in ALL:
        assert end(line.format("good", "same")) == code, line
        assert said in one_sentence(capsys.readouterr().err)


def test_what_the_documents_say() -> None:
    table = re.findall(r"^\| (\d+) \|", (TOP / "docs/cli.md").read_text(), re.M)
    assert [int(code) for code in table] == [0, 1, 2, 3, 130]
    shown = cli.build_parser().format_help()
    assert all(re.search(rf"\b{code} ", shown) for code in table), shown
