# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that tests run are files, which are formatted and linted (program_files.py): no string
of a test is one, but for the small trees that tests of checkers make."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LINES = 4
"""So many in a string make a program."""
STATEMENT = re.compile(r"^\s*(import|from|with|for) ", re.MULTILINE)
ALLOWED = {
    "unit/test_imports.py", "unit/test_includes.py", "unit/test_programs.py",
    "unit/test_troubleshooting.py",
    "faults/test_stolen_handler.py",  # programs that differ by what stands between their lines
}  # fmt: skip


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text; what is put into an f-string is a name."""
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(id(part) for part in node.values)
            texts = (p.value if isinstance(p, ast.Constant) else "name" for p in node.values)
            yield node.lineno, "".join(map(str, texts))
        elif isinstance(node, ast.Constant) and id(node) not in parts:
            yield node.lineno, str(node.value)


def is_program(text: str) -> bool:
    lines = textwrap.dedent(text).strip("\n")
    if lines.count("\n") + 1 < LINES:
        return False
    if "#include" in lines or lines.startswith("#!"):
        return True
    if not STATEMENT.search(lines):
        return False
    try:
        body = ast.walk(ast.parse(lines))
    except SyntaxError:
        return False
    return any(isinstance(node, (ast.Import, ast.ImportFrom, ast.With, ast.For)) for node in body)


def programs(file: Path) -> list[int]:
    return [line for line, text in strings(ast.parse(file.read_text())) if is_program(text)]


def test_no_program_is_a_string() -> None:
    found = {str(file.relative_to(TESTS)): programs(file) for file in TESTS.rglob("*.py")}
    assert not {name: lines for name, lines in found.items() if lines and name not in ALLOWED}


def test_what_is_a_program() -> None:
    assert is_program("\n    import os\n    a = 1\n    b = 2\n    print(a)\n")
    assert is_program("with Arena(1) as arena:\n    a = 1\n    b = 2\n    c = 3\n")
    assert is_program("\n#include <stdio.h>\n\nint main(void)\n{\n}\n")
    assert is_program("#!/bin/sh\nset -e\nls\ntrue\n")
    assert not is_program("import os\nprint(os.getpid())\n")
    assert not is_program("Some text of\nfour lines, which\nis for people\nalone.\n")
