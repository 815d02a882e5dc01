# SPDX-License-Identifier: GPL-2.0-or-later
"""Graphs of source files and of their rooms (folders): circles, pictures, counts. Used by
include_graph.py (C) and import_graph.py (Python)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

Graph = dict[str, set[str]]


class Tree(Protocol):
    """Files, by their names below the folder. An edge leads from a file to a file that it needs."""

    @property
    def lines(self) -> dict[str, int]: ...

    @property
    def edges(self) -> Graph: ...

    def rooms(self) -> Graph: ...


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of nodes that lead to each other, the largest first (strongly connected components,
    Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in number:
            visit(node)
    return sorted(found, key=len, reverse=True)


def dot(graph: Graph, name: str) -> str:
    lines = [f'\t"{one}" -> "{other}";' for one in sorted(graph) for other in sorted(graph[one])]
    return "\n".join([f"digraph {name} {{", "\trankdir=BT;", *lines, "}"])


def text(tree: Tree) -> str:
    rooms = tree.rooms()
    longest = max(tree.lines, key=lambda name: tree.lines[name])
    edges = sum(len(others) for others in tree.edges.values())
    said = [
        f"{len(tree.lines)} files, {sum(tree.lines.values())} lines, {edges} edges; "
        f"longest: {longest}, {tree.lines[longest]} lines",
        f"{len(rooms)} rooms, {sum(len(others) for others in rooms.values())} edges between them",
    ]
    width = max((len(room) for room in rooms), default=0)
    for room, below in sorted(rooms.items()):
        said.append(f"  {room:{width}} -> {' '.join(sorted(below)) or '-'}")
    for what, graph in (("rooms", rooms), ("files", tree.edges)):
        found = circles(graph)
        said.append(f"circles of {what}: {len(found)}")
        said += [f"  {len(group)}: {' '.join(group)}" for group in found]
    return "\n".join(said)


def show(read: Callable[[Path], Tree], folder: Path, about: str) -> None:
    """The command line of a script that reads such a tree."""
    parser = argparse.ArgumentParser(description=about.split("\n\n")[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=folder, help=f"default: {folder.name}/"
    )
    parser.add_argument("--dot", action="store_true", help="the rooms in dot's language")
    parser.add_argument("--files", action="store_true", help="the files in dot's language")
    arguments = parser.parse_args()
    tree = read(arguments.folder)
    if arguments.files:
        print(dot(tree.edges, folder.name))
    elif arguments.dot:
        print(dot(tree.rooms(), folder.name))
    else:
        print(text(tree))
