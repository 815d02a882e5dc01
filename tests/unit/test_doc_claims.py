# SPDX-License-Identifier: GPL-2.0-or-later
"""What documents say of the tests and of the code: names and numbers are those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from livedumpfs.machines.qemu import qemu_options, refusals
from tests.fixtures.documents import DOCS, DOCUMENTS, TOP, name_of
from tests.model import test_model as model

TESTS = TOP / "tests"


def section(document: str, heading: str) -> str:
    """Of a document, down to the next heading of that kind."""
    text = (DOCS / document).read_text()
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(document: str, heading: str) -> list[list[str]]:
    """Cells of its tables, without their heads."""
    lines = section(document, heading).splitlines()
    table = [line for line in lines if line.startswith("|") and not line.startswith("| --")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[1:]]


# --------------------------------------------------------------------- numbers of tests


def counted(pattern: str) -> list[int]:
    found = re.search(pattern, section("reliability.md", "The protocol"))
    assert found, pattern
    return [int(number) for number in found.groups()]


def test_the_numbers_of_models_and_of_their_bugs() -> None:
    bugs = {m for check, _ in model.MUTANTS for m in check.macros if m.startswith("BUG_")}
    said = counted(r"(\d+) small models, (\d+) of them in two sizes.*?(\d+) known bugs")
    assert said == [len(model.MODELS), len(model.VARIANTS), len(bugs)]


def test_the_numbers_of_cases_in_c_and_of_their_bugs() -> None:
    cases = (TESTS / "native/interleave/cases.c").read_text()
    bugs = list((TESTS / "native/interleave/bugs").glob("*.patch"))
    assert counted(r"as coroutines.*?(\d+) bugs put back.*?\| (\d+) cases") == [
        len(bugs),
        len(re.findall(r'^\t\{ "\w+"', cases, re.MULTILINE)),
    ]


def test_each_model_has_its_row() -> None:
    text = (DOCS / "concurrency.md").read_text().split("\n## ", 1)[0]
    table = "".join(line for line in text.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`(\w+)`", table)) == set(model.MODELS)


# ------------------------------------------------------------------------ tests by name


def files(name: str) -> list[str]:
    """Texts of the test files with that name."""
    return [path.read_text() for path in TESTS.rglob(name)]


@pytest.mark.parametrize("row", rows("security.md", "Promises"), ids=lambda row: row[0][:40])
def test_each_promise_names_tests_that_there_are(row: list[str]) -> None:
    """`file`: the beginning of a function's name; `file`, the heading of a part of it."""
    named = re.findall(r"`(test_\w+\.py)`(?:: (\w+)|, ([\w' ]+))?", row[1])
    assert named or "`make " in row[1], row
    for file, function, part in named:
        texts = files(file)
        assert texts, file
        wanted = rf"^def test_{function}" if function else rf"^# -+ {re.escape(part.strip())}$"
        if function or part:
            assert any(re.search(wanted, text, re.MULTILINE) for text in texts), (file, wanted)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_make_targets_in_the_text_are_there(path: Path) -> None:
    there = set(re.findall(r"^([a-z][a-z-]*):", (TOP / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][a-z-]*)[` ]", path.read_text()))
    assert named <= there, named - there


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_in_the_text_are_there(path: Path) -> None:
    """Those of the source tree, by their path."""
    named = re.findall(
        r"`((?:tests|bench|guest|native|scripts|livedumpfs|docs)/[\w./-]+)`", path.read_text()
    )
    assert not [name for name in named if not (TOP / name).exists()]


# ----------------------------------------------------------------------------- refusals


def test_each_refused_option_is_documented() -> None:
    text = section("qemu.md", "What is refused")
    missing = [name for name in refusals._OPTIONS if f"`-{name}`" not in text]
    assert not missing
    assert set(refusals._OPTIONS) <= qemu_options.FLAGS | qemu_options.VALUED


@pytest.mark.parametrize(
    "said",
    ["vhost", "vhost-user", "VFIO", "vDPA", "NVMe", "`ivshmem`", "huge pages", "DIMMs", "(S3)"],
)
def test_each_refused_kind_of_device_is_documented(said: str) -> None:
    assert said in section("qemu.md", "What is refused")


# --------------------------------------------------------------------- figures of the README


def part_of(link: str) -> str:
    """The text below a heading that a link names, down to the next one of its rank."""
    file, _, anchor = link.partition("#")
    parts = re.split(r"^(#+) (.+)$", (TOP / file).read_text(), flags=re.MULTILINE)
    found = ""
    rank = 0
    for marks, heading, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") == anchor:
            rank = len(marks)
        elif rank and len(marks) <= rank:
            break
        if rank:
            found += f"{heading}\n{text}"
    return found


def numbers(text: str) -> set[str]:
    """Each number in it, as it is written."""
    return set(re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?", text))


def figures() -> list[tuple[str, str, str]]:
    """Rows of the README's table: what, figure and bar, and where they come from."""
    text = (TOP / "README.md").read_text().split("\n## Figures\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^\| (.+) \| (.+ \| .*) \| \[.*\]\((\S+)\) \|$", text, re.MULTILINE)
    assert len(found) > 10
    return found


@pytest.mark.parametrize("row", figures(), ids=lambda row: row[0][:40])
def test_each_figure_of_the_readme_is_that_of_its_document(row: tuple[str, str, str]) -> None:
    """Digit by digit, in the part that the row links to; so is its bar."""
    _, said, link = row
    assert link.startswith(("docs/performance.md#", "docs/qemu.md#")), link
    missing = numbers(said) - numbers(part_of(link))
    assert numbers(said) and not missing, f"{missing} is not in {link}"


def test_the_readme_says_what_is_missed() -> None:
    """Each bar that docs/performance.md calls missed has its row, and the one of guests."""
    links = [link for _, said, link in figures() if "missed" in said]
    parts = re.findall(
        r"^### (.+)$", section("performance.md", "Missed, and the floor"), re.MULTILINE
    )
    slugs = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in parts]
    instead = {
        "the-p99-of-the-stop-and-writers-under-hot-stores": "the-stop"
    }  # it only refers to it
    wanted = {f"docs/performance.md#{instead.get(one, one)}" for one in slugs}
    assert wanted | {"docs/qemu.md#measured-stops"} <= set(links)
    assert len((TOP / "README.md").read_text().splitlines()) <= 200
