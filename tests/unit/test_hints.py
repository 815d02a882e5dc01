# SPDX-License-Identifier: GPL-2.0-or-later
"""Hints name a setting as the interface writes it that people use."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from livedumpfs.cli.outcome import option, sentence
from livedumpfs.errors import LivedumpError, TargetError, in_control, split_hint

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "livedumpfs"
ERROR = TargetError("cannot dump to x: it is not empty", hint="use <force> to overwrite it")


def test_one_hint_in_three_interfaces() -> None:
    assert str(ERROR) == "cannot dump to x: it is not empty (use force=True to overwrite it)"
    assert sentence(ERROR) == "cannot dump to x: it is not empty (use --force to overwrite it)"
    assert ERROR.worded(in_control).endswith("(use control/force to overwrite it)")
    value = LivedumpError("no more", hint="a smaller <pool>, or <spill_limit>")
    assert str(value) == "no more (a smaller pool, or spill_limit)"
    assert sentence(value) == "no more (a smaller --pool, or --spill-limit)"


def test_the_hosts_hint_is_the_clients_too() -> None:
    """Through control/error, which is text."""
    message, hint = split_hint(ERROR.worded(in_control))
    assert (message, hint) == (ERROR.message, ERROR.hint)


@pytest.mark.parametrize(
    "said",
    ["", "cannot open x: No such file", "cannot open a (b): x", "x (use force)", "(", "a ()"],
)
def test_other_sentences_stay_as_they_are(said: str) -> None:
    assert split_hint(said) == (said, "")
    assert str(LivedumpError(*split_hint(said)[:1])) == said


def test_only_hints_have_settings() -> None:
    """A path may look like one."""
    assert str(TargetError("cannot open <force>", hint="x")) == "cannot open <force> (x)"


def hints() -> list[tuple[str, str]]:
    """Each constant text of a hint in the library, with its place."""
    return [
        (f"{path.relative_to(TOP)}:{one.lineno}", one.value)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if is_hint(node)
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ]


def is_hint(node: ast.AST) -> bool:
    """hint="...", hint = "...", _HINTS = {...}."""
    if isinstance(node, ast.keyword):
        return node.arg == "hint"
    targets = [ast.unparse(one).lower() for one in getattr(node, "targets", ())]
    return isinstance(node, ast.Assign) and any("hint" in one for one in targets)


def test_no_hint_of_the_library_has_the_words_of_one_interface() -> None:
    assert any("<force>" in hint for _, hint in hints())
    for where, hint in hints():
        # What stands in backquotes, or begins with the program's name, is typed in a shell.
        prose = re.sub(r"`[^`]*`|livedump (qemu|convert) .*|write: -- .*", "", hint)
        assert "/cli/" in where or not re.search(r"(?<!\w)--[a-z]|=True\b", prose), (
            f"{where}: {hint}"
        )
        assert not re.search(r"\buse force\b", prose), f"{where}: {hint}"
        for name in re.findall(r"<(\w+)>", hint):
            assert option(name) in (TOP / "docs/cli.md").read_text(), f"{where}: {hint}"
