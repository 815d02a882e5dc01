# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of `livedump report` about dumps whose author wants to run a script, to reach the network,
to turn text round, or to make the page endless."""

from __future__ import annotations

import importlib
import itertools
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from livedumpfs.cli.main import main
from livedumpfs.errors import InvalidDump
from livedumpfs.formats import MachineInfo, MemoryRange
from livedumpfs.formats.note import Note
from livedumpfs.html_report import (
    HostSaid,
    LinuxMemory,
    Subject,
    TaskList,
    of_host,
    render,
    task_list,
)
from livedumpfs.html_report.page import _ROWS_MOST
from livedumpfs.html_report.task_list import TASKS_MOST, TaskRow
from tests.fixtures.html_pages import Element, parse

PAGE = 4096
TASK_LIST = importlib.import_module("livedumpfs.html_report.task_list")
"""The module: the package has a function of that name."""
EVIL = (
    "<script>evil()</script><img src=x onerror=evil()>\"' onload='evil()' --></style></title>"
    "{{ 7 * 7 }}{% raw %}&lt;\x1b[2J\r\u202e\u2066\x00\u2028evil"
)
ALLOWED = {
    "a", "body", "caption", "code", "dd", "desc", "details", "div", "dl", "dt", "figcaption",
    "figure", "footer", "h1", "h2", "head", "header", "html", "li", "main", "meta", "nav", "p",
    "path", "rect", "section", "small", "span", "strong", "style", "summary", "svg", "table",
    "tbody", "td", "th", "thead", "title", "tr", "ul",
}  # fmt: skip
"""Elements of the page; none of them runs or fetches anything."""


def harmless(text: str, *, evil: bool = True) -> Element:
    """All of the hostile text is text, and each of its characters is seen."""
    page = parse(text)
    assert {one.tag for one in page.everything()} <= ALLOWED
    for one in page.everything():
        assert not [name for name in one.attributes if name.startswith("on")], one
        assert one.attributes.get("class", "").isprintable()
        assert "evil" not in one.attributes.get("class", "") + one.attributes.get("id", "")
    assert all(line.isprintable() for line in text.replace("\u202f", " ").split("\n"))
    assert ("evil()" in page.text) == evil
    assert "49" not in page.one("h1").text
    return page


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_names_in_a_dump(format: str, tmp_path: Path, write_dump: Callable[..., Any]) -> None:
    arrays = [{"name": EVIL, "dtype": "<i8", "shape": [4], "offset": 0}]
    odd = {
        "policy": EVIL, "backend": EVIL, "arming": EVIL, "host_version": EVIL, "arrays": arrays,
        "machine": {"name": EVIL, "left_out": {EVIL: EVIL}}, "instant": {"wall_ns": EVIL},
        "registers": [{EVIL: EVIL, "rip": EVIL}, EVIL, 7, {"rip": [EVIL]}],
        "counters": {
            "handler_ns": [EVIL, -1, 1 << 99], "stall_max_ns": EVIL, "instant_wall_ns": 1 << 62,
            "pause_ns": [EVIL], "faults": {EVIL: 1},
        },
    }  # fmt: skip
    machine = MachineInfo(
        EVIL, vcpus=1, memory_map=(MemoryRange(0, 4 * PAGE, 0),), architecture=EVIL
    )
    write_dump(
        tmp_path / "dump", bytes(range(256)) * 64, format=format, machine=machine, meta=odd,
        verdict="torn", states=[6, 6, 6, 8],
    )  # fmt: skip
    words = ["report", str(tmp_path / "dump"), "--against", str(tmp_path / "dump")]
    assert main([*words, "-o", str(tmp_path / "page")]) == 3
    page = harmless((tmp_path / "page").read_text())
    assert page.one("h1").text.startswith("<script>evil()</script>")
    assert "\\u202e\\u2066\\x00\\u2028evil" in page.one("h1").text
    assert any(EVIL[:20] in row[0] for row in page.rows("Named arrays"))


def test_names_of_paths(tmp_path: Path, write_dump: Callable[..., Any]) -> None:
    """Also one that is not UTF-8."""
    path = tmp_path / (EVIL.replace("/", "_").replace("\0", "") + "\udcff")
    write_dump(path, bytes(range(256)) * 64)
    assert main(["report", str(path), "-o", str(tmp_path / "page")]) == 0
    page = harmless((tmp_path / "page").read_text())
    assert "\\xff" in page.pairs("facts")["dump"]


def test_the_words_of_a_host() -> None:
    """Of another user's, say."""
    stats = {
        "state": EVIL, "verdict": EVIL, "reason": EVIL, "machine": {"name": EVIL},
        "progress": {"total": 4 * PAGE}, "counters": {"granule_size": PAGE, "faults": EVIL},
    }  # fmt: skip
    said = HostSaid(
        device=EVIL, stats=stats, pages=b"SF<>&\"'L\xff", ranges=[(EVIL, EVIL)],
        registers={"numbers": [0, EVIL], "live": [{EVIL: EVIL}, EVIL]}, rows=[(EVIL, EVIL)],
    )  # fmt: skip
    page = harmless(render(of_host(said), TaskList(problem=EVIL)))
    assert "\\x1b[2J\\r" in page.one("section", id="tasks").text


def test_the_names_of_tasks() -> None:
    rows = [TaskRow(1, 0, EVIL, EVIL, False), TaskRow(-5, 1 << 40, "S", EVIL, True)]
    found = TaskList(rows, release=EVIL, by=EVIL)
    page = harmless(render(Subject("dump", "linux", "consistent", "", []), found))
    assert [row[0] for row in page.rows("2 tasks")] == ["1", "-5"]
    assert page.rows("2 tasks")[1][3].startswith("[<script>evil()")


def test_long_lists_are_cut() -> None:
    rows = [TaskRow(n, 0, "S", "x", False) for n in range(5)]
    many = [(f"name {n}", "x") for n in range(_ROWS_MOST + 7)]
    subject = Subject("dump", "x", "torn", "", [], memory=many, arrays=many)
    page = harmless(render(subject, TaskList(rows, cut=True)), evil=False)
    assert len(page.rows(f"Physical memory: the first {_ROWS_MOST:,}, and 7 more")) == _ROWS_MOST
    assert len(page.rows("Named arrays: the first")) == _ROWS_MOST
    assert len(page.rows("The first 5 tasks")) == 5


# ---------------------------------------------------------------------------- tasks


def memory(notes: list[Note], architecture: str = "riscv64") -> LinuxMemory:
    def read(address: int, length: int) -> bytes:
        raise OSError(5, "it is lost")

    meta: Mapping[str, object] = {
        "architecture": architecture, "notes": [one.describe() for one in notes],
    }  # fmt: skip
    return LinuxMemory(meta, (MemoryRange(0, PAGE, 0),), read)


VMCOREINFO = Note(b"VMCOREINFO\0", 0, f"OSRELEASE={EVIL[:60]}\nSYMBOL(swapper_pg_dir)=1\n".encode())


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (memory([]), "No Linux"),
        (memory([VMCOREINFO]), "The tasks cannot be read: the kernel's VMCOREINFO has no NUMBER"),
        (LinuxMemory({"notes": [EVIL]}, (), lambda *_: b""), "The tasks cannot be read"),
        (memory([VMCOREINFO], "x86_64"), "; its kernel with debug symbols may help."),
        (memory([VMCOREINFO]), "has no NUMBER(VA_BITS)."),
    ],
)
def test_a_linux_that_cannot_be_read(found: LinuxMemory, said: str) -> None:
    tasks = task_list(found, None)
    assert said in tasks.problem and not tasks.rows
    harmless(
        render(Subject("dump", "x", "torn", "", []), tasks),
        evil="OSRELEASE" in said or bool(tasks.release),
    )


def test_a_list_of_tasks_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as far as it is shown."""
    asked = itertools.count()

    def endless(kernel: object) -> Any:
        while True:
            yield SimpleNamespace(
                pid=next(asked), parent=0, state="S", name="x", user_memory=False, address=0
            )

    monkeypatch.setattr(TASK_LIST, "tasks", endless)
    monkeypatch.setattr(
        TASK_LIST,
        "Kernel",
        lambda *_: SimpleNamespace(description=SimpleNamespace(release="6.12")),
    )
    found = task_list(memory([VMCOREINFO]), None)
    assert (len(found.rows), found.cut) == (TASKS_MOST, True)
    assert next(asked) == TASKS_MOST + 1


@pytest.mark.parametrize(
    "error",
    [InvalidDump(EVIL), IndexError(EVIL), OverflowError(EVIL), struct.error(EVIL)],
    ids=lambda error: type(error).__name__,
)
def test_a_list_that_breaks_off(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(meta: object, read: object) -> Any:
        raise error

    monkeypatch.setattr(TASK_LIST, "Kernel", broken)
    tasks = task_list(memory([VMCOREINFO]), None)
    assert tasks.problem.startswith("The tasks cannot be read: ")
    harmless(render(Subject("dump", "x", "torn", "", []), tasks))


# ----------------------------------------------------------------------------- drgn


def test_drgn_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drgn", None)
    tasks = task_list(memory([VMCOREINFO], "x86_64"), "/no/vmlinux")
    assert tasks.problem == "drgn reads its tasks, and is not installed here (pip install drgn)."


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64", "evil"])
def test_drgn_that_cannot_read_it(architecture: str, tmp_path: Path) -> None:
    """No vmlinux, or a VMCOREINFO that makes no sense: one sentence."""
    (tmp_path / "vmlinux").write_text("Dear reader")
    tasks = task_list(memory([VMCOREINFO], architecture), str(tmp_path / "vmlinux"))
    assert tasks.problem.startswith("drgn cannot read its tasks: ") and "\n" not in tasks.problem
