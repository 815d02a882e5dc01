# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/troubleshooting.md has each error message of the source, and is up to date."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import error_places
import pytest
import troubleshooting
from messages import Message, Package

from livedumpfs.cli.outcome import exit_code
from livedumpfs.errors import LivedumpError

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "livedumpfs"
DOCUMENT = TOP / "docs" / "troubleshooting.md"
ERRORS = """
class LivedumpError(Exception): ...
class UsageError(LivedumpError): ...
class Special(UsageError):
    def __init__(self, number):
        super().__init__(f"cannot do {number} things", hint="fewer")
"""
USES = """
from small.errors import LivedumpError, Special
SAID = "use <force>"
def refused(path, why, hint=""): return LivedumpError(f"cannot open {path}: {why}", hint=hint)
class One:
    def f(self, path): raise refused(path, "it is a folder", SAID)
    def g(self, self_path): raise refused(self_path, "it is gone")
def special(): raise Special("two")
def check(rc, doing, error=LivedumpError): raise error(f"cannot {doing}: {os_cause(rc)}")
def chosen(x):
    kind = "long" if x else "short"
    check(x, f"send a {kind} word")
def other(): print("no error of ours")
"""


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(PACKAGE)


@pytest.fixture(scope="module")
def messages(package: Package) -> list[Message]:
    return list(package.messages())


def words(text: str) -> str:
    return re.sub(r"\W+", " ", text.replace("\\|", "|"))


def test_each_constant_sentence_of_a_raise_is_in_the_document() -> None:
    """Found without messages.py: what stands as it is in a `raise` of a class of ours."""
    text, missing, count = words(DOCUMENT.read_text()), [], 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            name = ast.unparse(node.exc.func)
            first = node.exc.args[0] if node.exc.args else None
            if name not in error_places.KINDS or not isinstance(
                first, ast.Constant | ast.JoinedStr
            ):
                continue
            parts = first.values if isinstance(first, ast.JoinedStr) else [first]
            said = [str(one.value) for one in parts if isinstance(one, ast.Constant)]
            count += 1
            missing += [(path.name, one) for one in said if words(one).strip() not in text]
    assert count > 300
    assert not missing


def test_each_kind_ends_a_command_as_it_is_told(package: Package) -> None:
    """By the classes themselves."""
    for name in package.bases:
        homes = [m for m in package.modules.values() if f"class {name}(" in ast.unparse(m.tree)]
        (home,) = homes
        kind = getattr(importlib.import_module(home.name), name)
        assert issubclass(kind, LivedumpError)
        bare = type(name, (kind,), {"__init__": lambda self: None})
        told = next(one for one in error_places.KINDS if package.is_a(name, one))
        assert exit_code(bare()) == error_places.KINDS[told].exit_code, name


def test_each_part_of_the_program_has_its_place(messages: list[Message]) -> None:
    assert len(messages) > 900
    for one in messages:
        troubleshooting.place_of(one)
    files = {one.file for one in messages}
    for place in error_places.PLACES:
        for begin in place.files:
            assert any(PACKAGE.glob(f"{begin}*")), begin
    assert {"cli/exclude.py", "targets/check.py", "machines/attach/obstacles.py"} <= files


def test_the_systems_words_are_the_systems() -> None:
    assert set(error_places.SYSTEM) <= {os.strerror(number) for number in errno.errorcode}


def test_options_in_cures_are_there() -> None:
    source = Path(error_places.__file__).read_text() + Path(troubleshooting.__file__).read_text()
    named = set(re.findall(r"`(--[a-z-]+)", source))
    assert "--pool" in named
    assert named <= set(re.findall(r"`(--[a-z-]+)", (TOP / "docs" / "cli.md").read_text()))


def test_each_row_has_a_cause_and_a_cure() -> None:
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| --"):
            cells = re.split(r"(?<!\\) \| ", line.strip("| "))
            assert all(cell.strip(" -`") for cell in cells), line


def test_what_helpers_put_around_a_sentence_is_followed(tmp_path: Path) -> None:
    top = tmp_path / "small"
    top.mkdir()
    (top / "errors.py").write_text(ERRORS)
    (top / "uses.py").write_text(USES)
    found = {(one.text, one.hint, one.kind) for one in Package(top).messages()}
    assert found == {
        ("cannot do two things", "fewer", "Special"),
        ("cannot open PATH: it is a folder", "use <force>", "LivedumpError"),
        ("cannot open SELF_PATH: it is gone", "", "LivedumpError"),
        ("cannot send a long word: CAUSE", "", "LivedumpError"),
        ("cannot send a short word: CAUSE", "", "LivedumpError"),
    }


def check(*words: str | Path) -> int:
    command = [sys.executable, TOP / "scripts" / "troubleshooting.py", "--check", *words]
    return subprocess.run(command, timeout=300, check=False).returncode


def test_the_document_is_up_to_date() -> None:
    assert check() == 0, "`make troubleshooting` writes it anew"


def test_a_document_with_another_message_is_not(tmp_path: Path) -> None:
    old = tmp_path / "troubleshooting.md"
    old.write_text(DOCUMENT.read_text().replace("`the arena is closed`", "`the arena is shut`"))
    assert old.read_text() != DOCUMENT.read_text()
    assert check(old) == 1
