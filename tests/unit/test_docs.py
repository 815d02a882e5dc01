# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents and the program say the same: commands, options, links, make targets."""

from __future__ import annotations

import argparse
import ast
import configparser
import re
import shlex
from pathlib import Path

import pytest

import livedumpfs
from livedumpfs import abi
from livedumpfs.cli.main import build_parser
from livedumpfs.cli.outcome import option
from livedumpfs.compression import MAX_LEVELS, MAX_THREADS
from livedumpfs.control import settings_files
from livedumpfs.core.capi import lib
from livedumpfs.dump import DumpSettings
from livedumpfs.machines.unicorn import RAM_MIN
from livedumpfs.settings import MAX_GRANULE, SPILL_LIMIT
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.documents import DOCUMENTS, TOP, blocks, name_of
from tests.fixtures.words import persons_in

CLI = TOP / "docs" / "cli.md"
CONTROL = TOP / "docs" / "control.md"
STALL_DEADLINE_OF_USERS = 10
"""Tests have a longer one; test_patience.py holds this."""
ANYWHERE = {"-h", "--help", "-q", "--quiet", "--no-color", "--version"}
PLAIN = [*DOCUMENTS, TOP / "tests" / "model" / "README.md"]


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command with its own parser, aliases too; of a group ("fleet") those in it."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name, parser in _commands_of(build_parser()).items():
        inside = _commands_of(parser)
        found |= {f"{name} {one}": its for one, its in inside.items()} or {name: parser}
    assert found, "the parser has no commands"
    return found


def _commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {text for action in parser._actions for text in action.option_strings}


def sections() -> dict[str, str]:
    """Command -> its section of docs/cli.md."""
    parts = re.split(r"^## livedump (\S+(?: \S+)?)$", CLI.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def written_options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*(?![\w-])", " ".join(code_spans(text))))


def code_spans(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`]+)`", prose)


def shell_lines(path: Path) -> list[str]:
    """What is typed in a document's terminal sessions."""
    lines: list[str] = []
    for block in blocks(path.read_text()):
        if block.language == "console":
            text = block.text.replace("\\\n> ", "")
            lines += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return lines


def make_targets(folder: Path) -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (folder / "Makefile").read_text(), re.MULTILINE))


def test_every_command_has_its_section_and_no_other_is_there() -> None:
    assert set(sections()) == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_is_documented_and_exists(name: str) -> None:
    real = options(commands()[name]) - ANYWHERE
    assert written_options(sections()[name]) - ANYWHERE == real


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_has_help(name: str) -> None:
    parser = commands()[name]
    assert parser.description
    assert all(action.help for action in parser._actions)
    parser.format_help()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{path.name}: {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_in_terminal_sessions_are_right(path: Path) -> None:
    """`livedump` lines parse, `make` lines name targets that the Makefile has."""
    for line in shell_lines(path):
        words = [w for w in shlex.split(re.split(r" \| | # ", line)[0]) if w != "&"]
        if words[0] == "sudo":
            del words[0]
        if words[0].split("/")[-1] == "livedump":
            build_parser().parse_args(words[1:])
        elif words[0] == "make":
            there = TOP / words[words.index("-C") + 1] if "-C" in words else TOP
            named = {w for w in words[1:] if "=" not in w and w not in ("-s", "-C")}
            assert named - {str(there.relative_to(TOP))} <= make_targets(there), line


def test_the_readme_shows_a_session() -> None:
    """Its first screen has the two commands and what they print."""
    first_screen = "\n".join((TOP / "README.md").read_text().splitlines()[:60])
    assert "$ livedump host" in first_screen
    assert "$ livedump dump" in first_screen
    assert "consistent" in first_screen


def test_a_setting_is_called_by_an_option_that_there_is() -> None:
    """In a hint: what no command has as an option is the file that one writes."""
    there = options(commands()["dump"]) | options(commands()["host"])
    for name in (
        *settings_files.names(),
        "state",
        "failed",
        "error",
        "pool",
        "mount",
        "allow_other",
    ):
        called = option(name)
        assert called in there or called == f"control/{name}"


def test_every_variable_of_the_environment_is_documented() -> None:
    """Those that the product reads and that are its own."""
    read = set()
    for path in (*(TOP / "livedumpfs").rglob("*.py"), TOP / "scripts" / "livedump"):
        read |= set(
            re.findall(r"\b(LIVEDUMP(?:FS)?_[A-Z]+|XDG_[A-Z_]+|JOURNAL_STREAM)\b", path.read_text())
        )
    # Fields of the journal have such names, too.
    read -= set(re.findall(r"`(LIVEDUMP_[A-Z]+)`", (TOP / "docs/metrics.md").read_text()))
    text = CLI.read_text()
    assert read and {name for name in read if f"`{name}`" in text} == read


def test_every_public_name_is_documented() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS if path.name != "CHANGELOG.md")
    for name in livedumpfs.__all__:
        assert re.search(rf"\b{name}\b", text), f"{name} is in no document"


def test_defaults_are_those_that_are_told() -> None:
    """By the tables of docs/cli.md, and the limits beside them."""
    told = {
        (name, option): text
        for name, text in sections().items()
        for option, text in re.findall(
            r"^\| `(--[a-z-]+)[^|`]*(?:\\\|[^|`]*)*` \| (.+) \|$", text, re.M
        )
    }
    usual = DumpSettings()
    host = build_parser().parse_args(["host"])
    for command, name, words in (
        ("host", "--ram", f"default {host.ram >> 20} MiB"),
        ("host", "--ram", f"from {RAM_MIN >> 20} MiB"),
        ("host", "--vcpus", f"default {host.vcpus}"),
        ("host", "--dirty", f"default {host.dirty:.0%}"),
        ("dump", "--format", f" | {usual.format} | "),
        ("dump", "--compress", f" | {usual.compression} | "),
        (
            "dump",
            "--level",
            f"zstd 1 to {MAX_LEVELS['zstd']}, zlib 1 to {MAX_LEVELS['zlib']}",
        ),
        ("dump", "--threads", f"1 to {MAX_THREADS}"),
        ("dump", "--pool", f" | {usual.pool} | "),
        ("dump", "--spill-limit", f"{SPILL_LIMIT >> 20} MiB under spill | "),
        ("dump", "--deadline", f" | {STALL_DEADLINE_OF_USERS} s | "),
        ("dump", "--granule", f"from {PAGE_SIZE} to {MAX_GRANULE}"),
        ("dump", "--granule", f"from {lib.ldfs_granule_default(1 << 20) >> 10}K on"),
        (
            "compare",
            "--ranges",
            f"default {build_parser().parse_args(['compare', 'a', 'b']).ranges}",
        ),
    ):
        assert words in told[command, name], f"{command} {name}: {told[command, name]}"


def test_every_control_file_is_documented() -> None:
    section = CONTROL.read_text().partition("\n## control/\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(
        {*settings_files.names(), "state", "id", "bases", "failed", "error", "pages"}
    )


def test_ioctl_numbers_are_those_of_the_program() -> None:
    rows = re.findall(
        r"^\| ([A-Z_]+)[^|]*\| (0x\w+|`_IO\w+\(0xff, 0x\w+\)`)", CONTROL.read_text(), re.M
    )
    assert len(rows) == 15
    for name, number in rows:
        command = getattr(abi, name)
        if number.startswith("0x"):
            assert int(number, 16) == command
        else:
            assert int(re.findall(r"0x\w+", number)[1], 16) == command & 0xFF


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_python_examples_compile_and_import_what_there_is(path: Path) -> None:
    for block in blocks(path.read_text()):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text, path.name)):
            if isinstance(node, ast.ImportFrom) and node.module == "livedumpfs":
                for alias in node.names:
                    assert getattr(livedumpfs, alias.name)


def test_pins_cover_what_setup_cfg_asks_for() -> None:
    config = configparser.ConfigParser()
    config.read(TOP / "setup.cfg")
    asked = config["options"]["install_requires"].split("\n")
    names = {re.split(r"[ <>=!]", line.strip())[0].lower() for line in asked if line.strip()}
    pins = (TOP / "requirements.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in pins if "==" in line}
    assert names <= pinned
    assert all("==" in line or line.startswith("#") for line in pins)


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.relative_to(TOP).as_posix())
def test_no_thread_or_process_is_called_a_person(path: Path) -> None:
    """Outside of code: a stranger must see at once what acts."""
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)
    assert not persons_in(text)
