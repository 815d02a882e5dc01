# SPDX-License-Identifier: GPL-2.0-or-later
"""What handlers of signals set while the thread that they interrupt waits for it."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

from livedumpfs.signal_event import SignalEvent
from tests.fixtures.program_files import program_command

TOP = Path(__file__).resolve().parents[2]


def test_it_is_set_while_the_interrupted_thread_waits() -> None:
    words = program_command(__file__, "set_while_it_waits.py")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done


def test_set_and_wait() -> None:
    event = SignalEvent()
    assert not event.is_set() and not event.wait(0.001)
    for _ in range(3):
        event.set()
        assert event.is_set() and event.wait(300)


def handlers(tree: ast.Module) -> list[ast.AST]:
    """The functions that a module installs by signal.signal()."""
    named = {one.name: one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
    found: list[ast.AST] = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "signal.signal":
            handler = call.args[1]
            found += [handler] if isinstance(handler, ast.Lambda) else []
            found += [named[ast.unparse(handler)]] if ast.unparse(handler) in named else []
    return found


def test_no_handler_takes_a_lock_of_threading() -> None:
    """A handler itself calls no method of an event, a lock or a condition that its module makes."""
    seen = 0
    for path in (TOP / "livedumpfs").rglob("*.py"):
        tree = ast.parse(path.read_text())
        made = {
            ast.unparse(target)
            for one in ast.walk(tree)
            if isinstance(one, ast.Assign | ast.AnnAssign) and one.value
            if ast.unparse(one.value).startswith("threading.")
            for target in (one.targets if isinstance(one, ast.Assign) else [one.target])
        }
        for handler in handlers(tree):
            seen += 1
            calls = [one.func for one in ast.walk(handler) if isinstance(one, ast.Call)]
            used = {ast.unparse(one.value) for one in calls if isinstance(one, ast.Attribute)}
            assert not used & made, (path, used & made)
    assert seen >= 3
