#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The include and call graph of native/: which file includes which, and which uses a function or a
variable that another defines. Folders are rooms.

    scripts/include_graph.py [FOLDER]          counts, edges between rooms, circles
    scripts/include_graph.py --dot [FOLDER]    the rooms, for `dot -Tsvg`
    scripts/include_graph.py --files [FOLDER]  the files instead of the rooms, for `dot -Tsvg`

tests/unit/test_includes.py holds the rooms to a table of allowed edges."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import graphs
from graphs import Graph, circles

__all__ = ["NATIVE", "Tree", "circles", "read", "room_of"]

NATIVE = Path(__file__).resolve().parents[1] / "native"

NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.MULTILINE)
NAME = re.compile(r"\b(?:ldfs|shim)_\w+")
# At the beginning of a line: `type name(arguments)`, then the body.
FUNCTION = re.compile(
    r"^(?!static\b|extern\b|typedef\b)[A-Za-z_][\w \t*]*?\b((?:ldfs|shim)_\w+)\([^;{}]*\)\s*\{",
    re.MULTILINE,
)
VARIABLE = re.compile(
    r"^(?!static\b|extern\b|typedef\b|_Static_assert\b)[A-Za-z_][^;{}=\n]*?\b((?:ldfs|shim)_\w+)"
    r"(?:\[\w+\])*\)?(?:\([^;{}=]*\))?\s*(?:=|;)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Tree:
    """Files, by their names below the folder. An edge leads from a file to a file that it needs."""

    lines: dict[str, int]
    includes: Graph
    uses: Graph
    """Edges for names that another file's object defines."""

    @property
    def edges(self) -> Graph:
        return {name: self.includes[name] | self.uses[name] for name in self.lines}

    def rooms(self) -> Graph:
        """The edges between folders. Files at the top, the public interface, are no room."""
        rooms: Graph = {room_of(name): set() for name in self.lines if room_of(name)}
        for name, others in self.edges.items():
            for other in others:
                if room_of(name) != room_of(other) and room_of(name) and room_of(other):
                    rooms[room_of(name)].add(room_of(other))
        return rooms


def room_of(name: str) -> str:
    return name.rpartition("/")[0]


def resolve(top: Path, path: Path, included: str) -> str | None:
    """The header that the file includes, searched as the compiler does: beside the file, then in
    the core's folder. None: it is not in this tree."""
    for folder in (path.parent, top, top / "shim"):
        found = (folder / included).resolve()
        if found.is_file() and found.is_relative_to(top):
            return found.relative_to(top).as_posix()
    return None


def definitions(text: str) -> set[str]:
    """Names that other objects can link with. A header only declares, so it defines none."""
    return {*FUNCTION.findall(text), *VARIABLE.findall(text)}


def read(folder: Path) -> Tree:
    """Read all C files below a folder."""
    top = folder.resolve()
    paths = sorted(p for p in top.rglob("*.[ch]"))
    texts = {p.relative_to(top).as_posix(): p.read_text() for p in paths}
    code = {name: NOISE.sub(" ", text) for name, text in texts.items()}
    home: dict[str, str] = {}
    for name, text in code.items():
        if name.endswith(".c"):
            home.update(dict.fromkeys(definitions(text), name))
    includes: Graph = {}
    uses: Graph = {}
    for name in texts:
        found = (resolve(top, top / name, i) for i in INCLUDE.findall(texts[name]))
        includes[name] = {other for other in found if other}
        words = set(NAME.findall(code[name])) if name.endswith(".c") else set()
        uses[name] = {home[word] for word in words if word in home} - {name}
    return Tree({name: len(text.splitlines()) for name, text in texts.items()}, includes, uses)


if __name__ == "__main__":
    graphs.show(read, NATIVE, __doc__ or "")
