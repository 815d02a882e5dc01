#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The import graph of livedumpfs/: which module imports which. Folders are rooms, and so is a
module that lies at the top.

    scripts/import_graph.py [FOLDER]          counts, edges between rooms, circles
    scripts/import_graph.py --dot [FOLDER]    the rooms, for `dot -Tsvg`
    scripts/import_graph.py --files [FOLDER]  the modules instead of the rooms, for `dot -Tsvg`

Modules that each room may import (LEAVES) are rooms, but no edge leads to one.
tests/unit/test_imports.py holds the rooms to a table of allowed edges."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import graphs
from graphs import Graph

PACKAGE = Path(__file__).resolve().parents[1] / "livedumpfs"
FACE = "__init__.py"
OPTIONS = {"compression", "kinds", "option", "request", "settings"}
LEAVES = frozenset(
    {
        *OPTIONS,
        *("abi", "answers", "by_dump_id", "clocks", "closing", "errors", "huge", "page_map"),
        *("pause", "pipe_thread", "proc", "signal_event", "step_barrier", "thread", "units"),
        "writer_lock",
    }
)


@dataclass(frozen=True)
class Import:
    """One import of a name in the package."""

    line: int
    name: str
    """The absolute dotted name: "livedumpfs.dump.live.LiveDump"."""
    module: str
    """The file below the package, such as "dump/live.py"; "__init__.py" for the package; or the
    name of a compiled module, "_native"."""

    @property
    def is_version(self) -> bool:
        return self.name.endswith(".__version__") and self.module == FACE


@dataclass(frozen=True)
class Tree:
    """Modules, by their files below the package. An edge leads from a module to one that it
    imports."""

    lines: dict[str, int]
    imports: dict[str, list[Import]]

    @property
    def edges(self) -> Graph:
        """All edges, without the imports of the version number, which all modules take from the
        package."""
        return {
            name: {one.module for one in found if not one.is_version} - {name}
            for name, found in self.imports.items()
        }

    def rooms(self) -> Graph:
        """The edges between rooms; the package's __init__.py is the room "livedumpfs"."""
        rooms: Graph = {room_of(name): set() for name in self.lines}
        for name, others in self.edges.items():
            rooms[room_of(name)] |= {room_of(other) for other in others}
        for room, below in rooms.items():
            below -= {room, *LEAVES}
        return rooms


def room_of(name: str) -> str:
    first = name.partition("/")[0].removesuffix(".py")
    return "livedumpfs" if first == "__init__" else first


def imported_names(path: Path, top: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of each import in a file, nested ones too."""
    package = (top.name, *path.relative_to(top).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def module_of(words: list[str], top: Path) -> str:
    """The file, below the package, of the longest prefix of the name that is a module."""
    at = top
    for word in words:
        if (at / word).is_dir():
            at = at / word
            continue
        if (at / f"{word}.py").is_file():
            return (at / f"{word}.py").relative_to(top).as_posix()
        if at == top and word.startswith("_") and not word.startswith("__"):
            return word  # a compiled module
        break
    return (at / "__init__.py").relative_to(top).as_posix()


def read(folder: Path) -> Tree:
    """Read all Python files of a package."""
    top = folder.resolve()
    lines: dict[str, int] = {}
    imports: dict[str, list[Import]] = {}
    for path in sorted(top.rglob("*.py")):
        name = path.relative_to(top).as_posix()
        lines[name] = len(path.read_text().splitlines())
        imports[name] = []
        for line, whole in imported_names(path, top):
            words = whole.split(".")
            if words[0] == top.name:
                imports[name].append(Import(line, whole, module_of(words[1:], top)))
    return Tree(lines, imports)


if __name__ == "__main__":
    graphs.show(read, PACKAGE, __doc__ or "")
