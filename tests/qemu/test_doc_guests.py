# SPDX-License-Identifier: GPL-2.0-or-later
"""The sessions of pages with a guest of QEMU, as they stand there. What they do with the symbols of
the guest's kernel (858 MB) is for `make test-qemu`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.doc_sessions import run_blocks, session
from tests.fixtures.documents import DOCS, Block, blocks


def without_symbols(found: list[Block]) -> list[Block]:
    """Without blocks that fetch them first: these are of no use then."""
    return [one for one in found if not one.text.partition("\n")[0].endswith("symbols")]


def type_page(page: str, folder: Path, *, symbols: bool) -> int:
    """Returns the number of commands."""
    found = blocks((DOCS / page).read_text())
    kept = found if symbols else without_symbols(found)
    assert symbols or len(kept) < len(found)
    with session(folder) as opened:
        return run_blocks(opened, folder, [one for one in kept if one.language == "console"])


@pytest.mark.parametrize("page", ["start/qemu.md", "howto/forensics.md"])
def test_the_session_of_a_page(page: str, guest_files: None, tmp_path: Path) -> None:
    del guest_files
    assert type_page(page, tmp_path, symbols=False) > 8


@pytest.mark.debuggers
@pytest.mark.parametrize("page", ["start/qemu.md", "howto/leak.md", "howto/forensics.md"])
def test_the_session_of_a_page_with_symbols(page: str, guest_files: None, tmp_path: Path) -> None:
    del guest_files
    assert type_page(page, tmp_path, symbols=True) > 5
