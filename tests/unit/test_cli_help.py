# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line says of itself: groups, examples, the nearest word, the next command; and
how little it says when it is asked to."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.cli import colour, output, progress
from livedumpfs.cli.examples import EXAMPLES
from livedumpfs.cli.main import build_parser, main
from livedumpfs.cli.outcome import Exit, note, sentence
from livedumpfs.errors import StateError
from tests.unit.test_docs import commands

LEAST = 2
"""Examples of each command."""


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the tests change in this process is put back."""
    monkeypatch.setenv(colour.VARIABLE, "")
    yield
    output.be_quiet(False)


@pytest.mark.parametrize("words", [["--quiet", "list"], ["list", "--json"], ["--quiet", "odd"]])
def test_a_command_leaves_no_manner_behind(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main(words)
    capsys.readouterr()
    output.report("a fact")
    assert not output.is_quiet() and capsys.readouterr().out == "a fact\n"


@pytest.mark.parametrize("name", sorted(set(commands()) - {"uninit"}))
def test_each_command_has_two_examples_that_parse(name: str) -> None:
    assert len(EXAMPLES[name]) >= LEAST, "livedumpfs/cli/examples.py"
    shown = commands()[name].format_help()
    for typed, meaning in EXAMPLES[name]:
        assert f"  {typed}\n      {meaning}\n" in f"{shown}\n"
        words = shlex.split(typed.removeprefix('eval "$(').removesuffix(')"'))
        words = words[: words.index(">")] if ">" in words else words
        assert words[:1] == ["livedump"]
        assert build_parser().parse_args(words[1:]).run


def test_there_are_no_examples_of_other_commands() -> None:
    assert set(EXAMPLES) == {*commands(), "fleet"} - {"uninit"}


def test_each_command_stands_below_one_heading() -> None:
    parser = build_parser()
    listed = [one.dest for _, inner in parser.groups for one in inner]
    assert sorted(listed) == sorted({name.partition(" ")[0] for name in commands()} - {"uninit"})
    text = parser.format_help()
    places = [text.index(f"\n{heading}:\n") for heading, _ in parser.groups]
    assert places == sorted(places)
    assert "release (uninit)" in text and "--version" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dmup"], "no such command: dmup; did you mean `livedump dump`? (see `livedump --help`)"),
        (["fleet", "lst"], "did you mean `livedump fleet list`? (see `livedump fleet --help`)"),
        (["dump", "x", "--polcy=y"], "no such option: --polcy; did you mean `--policy`?"),
        (["dump", "x", "y"], "unexpected argument: y (see `livedump dump --help`)"),
        (["xyzzy"], "no such command: xyzzy (see"),
    ],
)
def test_what_there_is_not(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == Exit.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("SWEEP is not possible in state UNINIT", "livedump init TARGET"),
        ("SWEEP is not possible in state INIT", "livedump start"),
        ("START is not possible in state START", "livedump sweep"),
        ("START is not possible in state SWEEP", "livedump finish"),
        ("SWEEP is not possible in state FINISH", "livedump release"),
        ("INIT: there is a dump already, in state FINISH (release it first)", "livedump release"),
        ("ARM: the machine is not held: HOLD comes first", "livedump hold"),
        ("GO: ARM comes first", "livedump arm"),
        ("no sweep is under way", "livedump status"),
    ],
)
def test_a_step_in_the_wrong_order_names_the_next_one(message: str, command: str) -> None:
    said = sentence(StateError(message, errno=errno.EINVAL))
    assert f"`{command}`" in said and said.count("(") == 1


def test_other_errors_of_state_stay_as_they_are() -> None:
    released = "SWEEP is not possible in state UNINIT (released: older than 3 s)"
    assert sentence(StateError(released)) == released
    assert sentence(StateError("x is busy", hint="wait for it")) == "x is busy (wait for it)"
    assert sentence(StateError("there is no snapshot")) == "there is no snapshot"


@pytest.mark.parametrize("words", [["-q", "list"], ["list", "--quiet"]])
def test_quiet_is_before_or_after_the_command(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("livedumpfs.hosts.registry.running", list)
    assert main(["list"]) == Exit.DONE
    assert capsys.readouterr().err == (
        "livedump: no host is running (start one with `livedump host`)\n"
    )
    assert main(words) == Exit.DONE
    assert capsys.readouterr() == ("", "")


def test_quiet_leaves_facts_and_errors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output.be_quiet(True)
    note("a note")
    output.report("a report")
    with progress.display("dump") as shown:
        shown.update(1, 2, 0)
        shown.warn("lost")
    output.say("a fact")
    assert capsys.readouterr() == ("a fact\n", "livedump: lost\n")
    assert main(["-q", "info", "/no/where"]) == Exit.FAILED
    assert capsys.readouterr().err.startswith("livedump: error: ")


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(colour.VARIABLE, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colour.in_colour("x", "red") == "x"  # no terminal
    monkeypatch.setattr(colour, "is_terminal", lambda stream: True)
    assert colour.in_colour("x", "red") == "\033[31mx\033[0m"
    monkeypatch.setenv("TERM", "dumb")
    assert colour.in_colour("x", "red") == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(colour.VARIABLE, "")  # an empty one does not count
    assert colour.in_colour("x", "red") != "x"
    build_parser().parse_args(["list", "--no-color"])
    assert os.environ[colour.VARIABLE] == "1"
    assert colour.in_colour("x", "red") == "x"
