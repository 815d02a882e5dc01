# SPDX-License-Identifier: GPL-2.0-or-later
"""Comments, docstrings and messages call a thread a thread, and not a person. test_docs.py holds
the documents to the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.words import c_texts, persons_in, python_texts

TOP = Path(__file__).resolve().parents[2]
PYTHON = ("livedumpfs", "bench", "examples", "scripts", "tests")
C = ("native", "bench", "guest", "tests")
ALONE = ("setup.py",)
NAMING_THEM = ("fixtures/words.py", "unit/test_words.py", "qemu/this_qemu.py")
"""Tests with these words as data; one is the name of a user."""


def sources() -> dict[str, str]:
    """Texts of each file of ours, by its path. What is built has others' sources, too (crash)."""
    found: dict[str, str] = {}
    python = [path for top in PYTHON for path in (TOP / top).rglob("*.py")]
    suffixes = (".c", ".h", ".pml")
    c = [path for top in C for path in (TOP / top).rglob("*.*") if path.suffix in suffixes]
    for path in [*python, *(TOP / "native").glob("*.py"), *(TOP / name for name in ALONE)]:
        found[str(path.relative_to(TOP))] = "\n\n".join(python_texts(path.read_text()))
    for path in (one for one in c if "build" not in one.parts):
        found[str(path.relative_to(TOP))] = "\n\n".join(c_texts(path.read_text()))
    return {
        name: text
        for name, text in found.items()
        if not name.endswith(NAMING_THEM) and "/build/" not in name  # of what was fetched
    }


def test_no_thread_or_process_is_called_a_person() -> None:
    said = {name: persons_in(text) for name, text in sources().items()}
    assert not {name: words for name, words in said.items() if words}


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
