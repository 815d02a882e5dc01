# SPDX-License-Identifier: GPL-2.0-or-later
"""The rooms of livedumpfs/: imports go one way, as docs/architecture.md says; no edge but those of
this table is allowed, and no name means two things. scripts/import_graph.py draws them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import graphs
import import_graph
import pytest
from import_graph import FACE, LEAVES, PACKAGE, room_of

ALLOWED: dict[str, set[str]] = {
    "core": {"_native"},
    "rights": set(),
    "hosts": set(),
    "doctor": set(),
    "headers": set(),
    "formats": set(),
    "targets": {"core", "formats", "rights"},
    "paging": set(),
    "linux": {"formats", "paging"},
    "machines": {"core", "formats", "linux", "paging"},
    "stores": {"formats"},
    "dumpfile": {"core", "formats", "linux", "rights", "stores", "targets"},
    "named": {"core", "dumpfile", "formats", "targets"},
    "dump": {"core", "dumpfile", "formats", "machines", "named", "stores", "targets"},
    "control": {"core", "dump", "formats", "linux", "machines", "rights", "targets"},
    "mount": {"control", "core", "dump", "dumpfile", "formats", "hosts", "machines"},
    "client": {"hosts"},
    "html_report": {"dumpfile", "formats", "linux", "paging"},
    "fleet": {"client", "dumpfile", "hosts", "machines", "stores", "targets"},
    "cli": {
        *("client", "doctor", "dump", "dumpfile", "fleet", "hosts", "html_report", "linux"),
        *("machines", "mount", "named", "stores", "targets"),
    },
    # What `import livedumpfs` offers to programs.
    "livedumpfs": {"core", "dump", "dumpfile", "headers", "named"},
}
"""Each room may import the leaves, too."""

OF_LEAVES = {
    "abi": {"kinds"},
    "answers": {"abi", "errors"},
    "by_dump_id": {"abi", "answers", "errors"},
    "clocks": set(),
    "closing": set(),
    "compression": {"errors", "kinds"},
    "errors": set(),
    "huge": {"errors", "units"},
    "kinds": {"errors", "units"},
    "option": {"kinds"},
    "page_map": set(),
    "pause": {"units"},
    "pipe_thread": {"thread"},
    "proc": set(),
    "request": {"abi", "errors", "kinds", "option", "settings"},
    "settings": {"compression", "errors", "kinds", "option", "units"},
    "signal_event": set(),
    "step_barrier": {"errors", "writer_lock"},
    "thread": {"errors", "units"},
    "units": set(),
    "writer_lock": {"errors"},
}
"""What one leaf imports of others."""

WORDS_OF_ENUMS = {"Arming", "AtLimit", "Backend", "Compression", "Format", "Policy", "Table"}
WORDS = (["abi.py", "settings.py"], ["abi.py", "compression.py"])
"""The numbers of the interface, and the words for them: the one exception to the rule that two
public classes have two names."""

CAPABILITIES = "machines/capabilities.py"

# What a module that lays out bytes must not reach for: files, processes, the network.
IMPURE = {"io", "mmap", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile"}


@pytest.fixture(scope="module")
def tree() -> import_graph.Tree:
    return import_graph.read(PACKAGE)


def edges_not_allowed(tree: import_graph.Tree) -> list[str]:
    table = ALLOWED | OF_LEAVES
    wrong = []
    for name, found in tree.imports.items():
        room = room_of(name)
        allowed = {room, *table.get(room, set()), *(LEAVES if room in ALLOWED else ())}
        wrong += [
            f"livedumpfs/{name}:{one.line}: {room} imports {one.name}"
            for one in found
            if room_of(one.module) not in allowed and not one.is_version
        ]
    return wrong


def test_imports_only_go_down(tree: import_graph.Tree) -> None:
    assert edges_not_allowed(tree) == []


def test_the_table_says_no_more_than_there_is(tree: import_graph.Tree) -> None:
    """Nor less: each folder, and each module at the top, has its row."""
    assert set(OF_LEAVES) == LEAVES
    assert tree.rooms() == ALLOWED | {leaf: set() for leaf in LEAVES}
    found = {name.removesuffix(".py"): below for name, below in tree.edges.items()}
    for leaf, below in OF_LEAVES.items():
        assert {room_of(other) for other in found[leaf]} == below


def test_there_is_no_circle_of_rooms(tree: import_graph.Tree) -> None:
    assert graphs.circles(tree.rooms()) == []
    assert graphs.circles(OF_LEAVES) == []


def test_there_is_no_circle_of_modules(tree: import_graph.Tree) -> None:
    assert graphs.circles(tree.edges) == []


def test_no_two_modules_have_one_name(tree: import_graph.Tree) -> None:
    """Packages count: a file, an import or a traceback names one thing, wherever it is read."""
    places: dict[str, list[str]] = {}
    for name in tree.lines:
        path = Path(name)
        called = path.parent.name if path.name == "__init__.py" else path.stem
        places.setdefault(called, []).append(name)
    del places["__main__"]
    assert {called: names for called, names in places.items() if len(names) > 1} == {}


def public_names(path: Path) -> Iterator[tuple[str, ast.ClassDef | ast.stmt]]:
    """Classes of a module, and what else has such a name at its top: types."""
    for node in ast.parse(path.read_text(), str(path)).body:
        named = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [one.id for one in named if isinstance(one, ast.Name)]
        for name in [node.name] if isinstance(node, ast.ClassDef) else names:
            if name[0].isupper() and not name.isupper() and any(map(str.islower, name)):
                yield name, node


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, _ in public_names(path):
            places.setdefault(name, []).append(path.relative_to(PACKAGE).as_posix())
    assert len(places) > 100
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in WORDS_OF_ENUMS} == {}
    assert all(twice[name] in WORDS for name in WORDS_OF_ENUMS if name in twice)


def test_what_machines_can_do_besides_is_said_in_one_place() -> None:
    """Each isinstance for it goes through machines/capabilities.py, and no other room asks for a
    class of machine."""
    protocols = {
        (path.relative_to(PACKAGE).as_posix(), name): node
        for path in sorted(PACKAGE.rglob("*.py"))
        for name, node in public_names(path)
        if "runtime_checkable" in [getattr(one, "id", "") for one in decorators(node)]
    }
    assert {place for place, _ in protocols} == {CAPABILITIES}
    for (_, name), node in protocols.items():
        methods = [one for one in ast.walk(node) if isinstance(one, ast.FunctionDef)]
        assert isinstance(node, ast.ClassDef) and methods, name
        assert all(ast.get_docstring(one) for one in (node, *methods)), name
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parts[len(PACKAGE.parts)] == "machines":
            continue
        tree = ast.parse(path.read_text())
        machines = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and "livedumpfs.machines" in (node.module or "")
            for alias in node.names
        }
        for call in filter(is_isinstance, ast.walk(tree)):
            asked = {one.id for one in ast.walk(call.args[1]) if isinstance(one, ast.Name)}
            wrong = asked & machines - {name for _, name in protocols}
            assert not wrong, f"{path}:{call.lineno} asks for {sorted(wrong)}"


def decorators(node: ast.stmt) -> list[ast.expr]:
    return node.decorator_list if isinstance(node, ast.ClassDef) else []


def is_isinstance(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"


def test_formats_do_no_input_or_output() -> None:
    for path in sorted((PACKAGE / "formats").glob("*.py")):
        names = import_graph.imported_names(path, PACKAGE)
        reached = {name.split(".")[0] for _, name in names} & IMPURE
        assert not reached, f"{path.name} imports {sorted(reached)}"


def test_control_knows_no_fuse() -> None:
    for path in sorted((PACKAGE / "control").glob("*.py")):
        names = import_graph.imported_names(path, PACKAGE)
        assert "fuse" not in {name.split(".")[0] for _, name in names}, path.name


def test_a_helper_needs_the_standard_library_alone(tree: import_graph.Tree) -> None:
    """opener.py runs isolated, beside folder.py, with the rights of another user."""
    alone = {"rights/opener.py": {"rights/folder.py"}, "rights/folder.py": set()}
    assert {name: tree.edges[name] for name in alone} == alone


def test_only_capi_imports_the_native_core(tree: import_graph.Tree) -> None:
    assert [n for n, others in tree.edges.items() if "_native" in others] == ["core/capi.py"]


def test_the_finished_dump_s_mount_needs_no_host(tree: import_graph.Tree) -> None:
    assert "mount/host.py" not in tree.edges["mount/browse.py"]


def test_each_import_is_an_edge(tmp_path: Path) -> None:
    """The script itself: relative, nested and `from package import module` imports; names through
    the package; the version number, which is none; a table that lacks a row."""
    files = {
        "__init__.py": "__version__ = '1'\n",
        "dump.py": "from livedumpfs import __version__, units, other\n",
        "units.py": "import os\n",
        "formats/__init__.py": "",
        "formats/elf.py": (
            "from . import table\ndef f():\n    from .. import dump\n"
            "    import livedumpfs.mount.host\n    from ..mount.fs import X\n"
        ),
        "formats/table.py": "from livedumpfs._native import lib\n",
        "mount/__init__.py": "from livedumpfs.formats import elf\n",
        "mount/host.py": "from livedumpfs.mount import Y\n",
        "mount/fs.py": "",
        "unknown/__init__.py": "import livedumpfs.units\nimport livedumpfs.dump\n",
    }
    package = tmp_path / "livedumpfs"
    for name, text in files.items():
        (package / name).parent.mkdir(exist_ok=True, parents=True)
        (package / name).write_text(text)
    tree = import_graph.read(package)
    assert tree.edges == {
        FACE: set(),
        "dump.py": {"units.py", FACE},
        "units.py": set(),
        "formats/__init__.py": set(),
        "formats/elf.py": {"formats/table.py", "dump.py", "mount/host.py", "mount/fs.py"},
        "formats/table.py": {"_native"},
        "mount/__init__.py": {"formats/elf.py"},
        "mount/host.py": {"mount/__init__.py"},
        "mount/fs.py": set(),
        "unknown/__init__.py": {"units.py", "dump.py"},
    }
    assert graphs.circles(tree.rooms()) == [["formats", "mount"]]
    assert edges_not_allowed(tree) == [
        "livedumpfs/dump.py:1: dump imports livedumpfs.other",
        "livedumpfs/formats/elf.py:3: formats imports livedumpfs.dump",
        "livedumpfs/formats/elf.py:4: formats imports livedumpfs.mount.host",
        "livedumpfs/formats/elf.py:5: formats imports livedumpfs.mount.fs.X",
        "livedumpfs/formats/table.py:1: formats imports livedumpfs._native.lib",
        "livedumpfs/unknown/__init__.py:1: unknown imports livedumpfs.units",
        "livedumpfs/unknown/__init__.py:2: unknown imports livedumpfs.dump",
    ]
