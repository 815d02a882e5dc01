# SPDX-License-Identifier: GPL-2.0-or-later
"""What handlers of signals set while the thread that they interrupt waits for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from livedumpfs.signal_event import SignalEvent

TOP = Path(__file__).resolve().parents[2]
STORM = """
import random, signal, time
from {module} import {name}
flags = [{name}()]
def handler(number, frame): flags[0].set()
signal.signal(signal.SIGALRM, handler)
end = time.monotonic() + 2
while time.monotonic() < end:
    flags[0] = {name}()
    signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-5, 5e-4))
    while not flags[0].wait(2e-5): pass
print("done")
"""


def survives(module: str, name: str, seconds: float) -> bool:
    """Whether a process comes to its end whose handler sets one while it waits, many times."""
    script = STORM.format(module=module, name=name)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=TOP, capture_output=True, timeout=seconds, text=True
        )
    except subprocess.TimeoutExpired:
        return False
    assert (done.returncode, done.stdout) == (0, "done\n"), done
    return True


def test_it_is_set_while_the_interrupted_thread_waits() -> None:
    assert survives("livedumpfs.signal_event", "SignalEvent", 300)


def test_set_and_wait() -> None:
    flag = SignalEvent()
    assert not flag.is_set() and not flag.wait(0.001)
    for _ in range(3):
        flag.set()
        assert flag.is_set() and flag.wait(300)


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
    """No method of an event, a lock or a condition is called in a handler, by whatever name."""
    seen = 0
    for path in (TOP / "livedumpfs").rglob("*.py"):
        tree = ast.parse(path.read_text())
        made = {
            ast.unparse(target)
            for one in ast.walk(tree)
            if isinstance(one, ast.Assign) and ast.unparse(one.value).startswith("threading.")
            for target in one.targets
        }
        for handler in handlers(tree):
            seen += 1
            calls = [one.func for one in ast.walk(handler) if isinstance(one, ast.Call)]
            used = {ast.unparse(one.value) for one in calls if isinstance(one, ast.Attribute)}
            assert not used & made, (path, used & made)
    assert seen >= 3
