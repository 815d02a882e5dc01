# SPDX-License-Identifier: GPL-2.0-or-later
"""The rooms of native/: includes and calls go one way, as docs/architecture.md says; no edge but
those of this table is allowed. scripts/include_graph.py draws them."""

from __future__ import annotations

import re
from pathlib import Path

import include_graph
import pytest

ALLOWED: dict[str, set[str]] = {
    "base": set(),
    "memory": {"base"},
    "target": {"base"},
    "state": {"base", "memory", "target"},
    "fault": {"base", "memory", "state"},
    "saving": {"base", "memory", "target", "state"},
    "life": {"base", "memory", "target", "state", "fault", "saving"},
    # By ldfs_dump_read, whose home that is.
    "serving": {"base", "life"},
    "vcpu": {"base"},
    "board": {"base", "vcpu"},
    # By the functions of ldfs.h, whose homes these are.
    "shim": {"base", "memory", "target", "fault", "life"},
}

# What a room shows to others; the rest is its own.
SHOWN = {room: {f"{room}/{room}.h"} for room in ALLOWED}
SHOWN["base"] |= {"base/atomic.h", "base/copy.h", "base/relax.h"}
SHOWN["life"] |= {"life/reference.h"}


@pytest.fixture(scope="module")
def tree() -> include_graph.Tree:
    return include_graph.read(include_graph.NATIVE)


def edges_not_allowed(tree: include_graph.Tree) -> list[str]:
    wrong = []
    for name, others in sorted(tree.edges.items()):
        room = include_graph.room_of(name)
        for other in sorted(others):
            below = include_graph.room_of(other)
            # The public interface at the top is for all, and includes nothing of a room.
            if below and below != room and below not in ALLOWED.get(room, set()):
                wrong.append(f"{name} needs {other}")
    return wrong


def test_includes_and_calls_only_go_down(tree: include_graph.Tree) -> None:
    assert set(tree.rooms()) == set(ALLOWED), "a folder has no row in the table"
    assert edges_not_allowed(tree) == []


def test_the_table_says_no_more_than_there_is(tree: include_graph.Tree) -> None:
    assert tree.rooms() == ALLOWED


def test_there_is_no_circle(tree: include_graph.Tree) -> None:
    assert include_graph.circles(tree.rooms()) == []
    assert include_graph.circles(tree.edges) == []


def test_only_the_interface_and_headers_lie_at_the_top(tree: include_graph.Tree) -> None:
    top = {name for name in tree.lines if not include_graph.room_of(name)}
    assert top == {"ldfs.h", "livedump_ioctl.h"}


def test_a_room_shows_one_header(tree: include_graph.Tree) -> None:
    """Which says what the room offers and what it refuses to do."""
    for name, others in tree.includes.items():
        for other in others:
            room = include_graph.room_of(other)
            hidden = room and room != include_graph.room_of(name) and other not in SHOWN[room]
            assert not hidden, f"{name} includes {other}, which is its room's own"
    for room in ALLOWED:
        headers = (include_graph.NATIVE / room).glob("*.h")
        assert any("refuse" in path.read_text() for path in headers), room


def test_names_are_told_apart(tree: include_graph.Tree) -> None:
    core = [Path(n).stem for n in tree.lines if n.endswith(".c") and "shim/" not in n]
    assert len(core) == len(set(core)), "tests and their tools name objects by the file alone"


def test_each_include_and_each_shared_name_is_an_edge(tmp_path: Path) -> None:
    """The script itself: an include that goes up, a call that no include shows, a variable, and
    what stands in comments and strings alone."""
    files = {
        "ldfs.h": "int ldfs_top(void);\n",
        "base/low.c": '#include "ldfs.h"\n#include "life/life.h"\nint ldfs_low;\n',
        "base/call.c": "/* ldfs_top() */ int ldfs_call(void)\n{\n\treturn ldfs_begin(1);\n}\n",
        "life/life.h": "int ldfs_begin(int n);\nextern int ldfs_low;\n",
        "life/begin.c": (
            '#include "life/life.h"\nconst char *text = "ldfs_call";\n'
            "int ldfs_begin(int n)\n{\n\treturn n + ldfs_low;\n}\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    tree = include_graph.read(tmp_path)
    assert tree.edges == {
        "ldfs.h": set(),
        "base/low.c": {"ldfs.h", "life/life.h"},
        "base/call.c": {"life/begin.c"},
        "life/life.h": set(),
        "life/begin.c": {"life/life.h", "base/low.c"},
    }
    assert include_graph.circles(tree.rooms()) == [["base", "life"]]
    assert edges_not_allowed(tree) == [
        "base/call.c needs life/begin.c",
        "base/low.c needs life/life.h",
    ]


def test_a_circle_is_found_whole() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert include_graph.circles(graph) == [["a", "b", "c"], ["d", "e"]]


STATE_WRITTEN = re.compile(
    r"(?:store|cas|exchange|add|sub)\w*\(&[^,()]*(?:->|\.)state\["
    r"|(?:->|\.)state\[[^\]]*\] *[-+|&^]?=[^=]"
)
"""A write to the state byte of a granule: an atomic one, or an assignment."""


def writes_states(text: str) -> bool:
    return bool(STATE_WRITTEN.search(text))


def test_only_granule_c_changes_the_state_of_a_granule() -> None:
    writers = [
        file
        for file in sorted(include_graph.NATIVE.rglob("*.c"))
        if writes_states(file.read_text())
    ]
    assert [file.relative_to(include_graph.NATIVE).as_posix() for file in writers] == [
        "state/granule.c"
    ]


@pytest.mark.parametrize(
    "line",
    ["store_seq(&d->state[g], 1);", "cas_seq(&d->state[g], &was, now)", "d->state[g] = 0;"],
)
def test_a_write_of_a_state_is_seen(line: str) -> None:
    assert writes_states(line) and not writes_states(line.replace("d->state[g]", "d->level[g]"))
    assert not writes_states("return load_seq(&d->state[g]) == LDFS_G_SAVED;")
