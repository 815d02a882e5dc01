# SPDX-License-Identifier: GPL-2.0-or-later
"""Deadlines are read when they are needed: one that is a default argument was read at import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from livedumpfs.machines.qemu import monitor
from livedumpfs.machines.qemu.monitor import Monitor

PACKAGE = Path(__file__).resolve().parents[2] / "livedumpfs"
TIMES = ("_S", "SECONDS", "TIMEOUT", "DEADLINE")


def test_no_deadline_is_a_default_argument() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                defaults = (*node.args.defaults, *node.args.kw_defaults)
                names = [ast.unparse(one) for one in defaults if one]
                found += [f"{path}:{node.lineno}: {one}" for one in names if one.endswith(TIMES)]
    assert not found


def test_a_monitor_takes_the_deadlines_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    made = Monitor.__new__(Monitor)

    def submit(work: object, timeout: float) -> dict[str, str]:
        work.close()  # type: ignore[attr-defined]
        seen.append(timeout)
        return {"status": "running"}

    monkeypatch.setattr(made, "_submit", submit, raising=False)
    monkeypatch.setattr(monitor, "ANSWER_S", 21.0)
    assert made.status() == "running"
    made.execute("query-status")
    made.hmp("info registers")
    made.status(timeout=3.0)
    assert seen == [21.0, 21.0, 21.0, 3.0]
