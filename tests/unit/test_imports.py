# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports go one way, as docs/architecture.md says; no edge but those of this table is allowed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "livedumpfs"

LEAVES = {"units", "errors", "abi", "closing", "folder", "mounts", "pause"}
CORE = {"_capi"}
PARTS = {"arena", "machines", "targets", "formats"}
LIFE = {"dump", "snapshot"}

ALLOWED: dict[str, set[str]] = {
    "units": set(),
    "errors": set(),
    "closing": set(),
    "folder": set(),
    "mounts": set(),
    "headers": set(),
    "abi": {"units", "errors"},
    "pause": {"units"},
    "_native": set(),
    "_capi": LEAVES | {"_native"},
    "arena": LEAVES | CORE,
    "machines": LEAVES | CORE | {"arena", "formats"},
    "targets": LEAVES | CORE | {"formats"},
    "formats": LEAVES | CORE,
    "snapshot": LEAVES | CORE | PARTS,
    "dump": LEAVES | CORE | PARTS | {"snapshot"},
    "opener": LEAVES,
    "helper": LEAVES | {"opener"},
    "registry": LEAVES,
    "control": LEAVES | CORE | PARTS | LIFE | {"opener", "helper"},
    "attributes": LEAVES,
    "contents": LEAVES,
    "hosttree": LEAVES | LIFE | {"control", "attributes", "contents"},
    "fs": LEAVES | CORE | PARTS | LIFE | {"control", "attributes", "hosttree"},
    "host": LEAVES | CORE | PARTS | LIFE | {"control", "opener", "fs", "registry"},
    "browse": LEAVES | PARTS | LIFE | {"attributes", "fs", "host"},
    "device": LEAVES | {"registry"},
    "client": LEAVES | {"device"},
    "cli": LEAVES | PARTS | LIFE | {"host", "browse", "client", "registry"},
    # What `import livedumpfs` offers to programs.
    "": LEAVES | PARTS | LIFE | {"headers"},
}

# What a module that lays out bytes must not reach for: files, processes, the network.
IMPURE = {"io", "mmap", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile"}


def part_of(path: Path) -> str:
    """The part that a file belongs to: "cli" for livedumpfs/cli/dump_command.py, "" for the package."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def is_part(name: str) -> bool:
    return name in ALLOWED or (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of each import in a file, nested ones too."""
    package = ("livedumpfs", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def imported_parts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, part) of each import of our own package that leaves the file's own part."""
    for line, name in imported_names(path):
        words = name.split(".")
        if words[0] != "livedumpfs":
            continue
        # `from livedumpfs import __version__` is an edge to the package itself.
        part = words[1] if len(words) > 1 and is_part(words[1]) else ""
        if part != part_of(path):
            yield line, part


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_only_go_down(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"{part} has no row in the table of imports"
    wrong = [
        f"{path.relative_to(TOP)}:{line}: {part or 'livedumpfs'} imports {other}"
        for line, other in imported_parts(path)
        # The version number is everybody's.
        if other and other not in ALLOWED[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_take_only_the_version_from_the_package_itself() -> None:
    for path in sources():
        for line, name in imported_names(path):
            words = name.split(".")
            through = words[0] == "livedumpfs" and (len(words) == 1 or not is_part(words[1]))
            if through and part_of(path):
                where = f"{path.relative_to(TOP)}:{line}"
                assert name == "livedumpfs.__version__", f"{where}: {name} through the package"


def test_the_table_has_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        free = {p for p, below in ALLOWED.items() if p not in done and below <= done | {p}}
        assert free, f"the allowed imports have a cycle among {set(ALLOWED) - done}"
        done |= free


@pytest.mark.parametrize("path", sorted((PACKAGE / "formats").glob("*.py")), ids=lambda p: p.name)
def test_formats_do_no_input_or_output(path: Path) -> None:
    reached = {name.split(".")[0] for _, name in imported_names(path)} & IMPURE
    assert not reached, f"{path.relative_to(TOP)} imports {sorted(reached)}"


def test_only_capi_imports_the_native_core() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in sources()
        for _, part in imported_parts(path)
        if part == "_native"
    }
    assert importers <= {"_capi.py"}


def test_an_edge_that_goes_up_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: relative, nested and `from package import module` imports are all edges."""
    package = tmp_path / "livedumpfs"
    (package / "formats").mkdir(parents=True)
    (package / "dump.py").write_text("")
    bad = package / "formats" / "elf.py"
    bad.write_text(
        "def f():\n    from .. import dump\n    import livedumpfs.mount.host\n    from ..fs import X\n"
    )
    monkeypatch.setitem(globals(), "PACKAGE", package)
    assert list(imported_parts(bad)) == [(2, "dump"), (3, "host"), (4, "fs")]
