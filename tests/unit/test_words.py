# SPDX-License-Identifier: GPL-2.0-or-later
"""Comments, docstrings and messages call a thread a thread, and not a person. test_docs.py holds
the documents to the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.words import c_texts, persons_in, python_texts

TOP = Path(__file__).resolve().parents[2]
PYTHON = ("livedumpfs", "bench", "scripts")
C = ("native", "bench", "guest")
ALONE = ("setup.py",)

OWED = {
    "livedumpfs/control/__init__.py",
    "livedumpfs/control/caller.py",
    "livedumpfs/control/caller_target.py",
    "livedumpfs/control/calls.py",
    "livedumpfs/control/settings_files.py",
    "livedumpfs/control/snapshot_tree.py",
    "livedumpfs/dump/attempt.py",
    "livedumpfs/dump/core_dump.py",
    "livedumpfs/dump/dump_files.py",
    "livedumpfs/dump/live.py",
    "livedumpfs/dump/remote.py",
    "livedumpfs/dump/room.py",
    "livedumpfs/dump/run.py",
    "livedumpfs/dump/spill.py",
    "livedumpfs/dumpfile/destination.py",
    "livedumpfs/dumpfile/layout.py",
    "livedumpfs/dumpfile/pages.py",
    "livedumpfs/formats/plan.py",
    "livedumpfs/machines/machine.py",
    "livedumpfs/machines/shim.py",
    "livedumpfs/machines/threads.py",
    "livedumpfs/machines/unicorn.py",
    "livedumpfs/mount/fs.py",
    "livedumpfs/mount/host.py",
    "native/fault/save.c",
}
"""Files that still have such words. A file that has none any more must leave the list."""


def sources() -> dict[str, str]:
    """Texts of each file of ours, by its path."""
    found: dict[str, str] = {}
    python = [path for top in PYTHON for path in (TOP / top).rglob("*.py")]
    c = [path for top in C for path in (TOP / top).rglob("*.[ch]")]
    for path in [*python, *(TOP / "native").glob("*.py"), *(TOP / name for name in ALONE)]:
        found[str(path.relative_to(TOP))] = "\n\n".join(python_texts(path.read_text()))
    for path in c:
        found[str(path.relative_to(TOP))] = "\n\n".join(c_texts(path.read_text()))
    return found


def test_no_thread_or_process_is_called_a_person() -> None:
    said = {name: persons_in(text) for name, text in sources().items()}
    assert not {name: words for name, words in said.items() if words and name not in OWED}
    assert {name for name, words in said.items() if words} == OWED


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Whoever stores waits, unless somebody else has his slot", 3),
        ("a process that waits for\n   whom?", 1),
        ("users who read do not, nor does a user\nwho writes", 0),
        ("the whole heap, and its history", 0),
    ],
)
def test_the_words_for_persons_are_found(text: str, count: int) -> None:
    assert len(persons_in(text)) == count


def test_comments_and_strings_of_python_are_looked_at_and_names_are_not() -> None:
    source = '"""Nobody."""\n\n\ndef who(his: int) -> str:\n    return f"{his} of somebody"  # he\n'
    assert sum(len(persons_in(text)) for text in python_texts(source)) == 3


def test_comments_of_c_are_looked_at_and_code_is_not() -> None:
    source = 'int who; /* the reader\n\t * who waits */ char *s = "/* he */"; // anybody\n'
    assert [text.split()[-1] for text in c_texts(source)] == ["*/", "anybody"]
    assert sum(len(persons_in(text)) for text in c_texts(source)) == 2
