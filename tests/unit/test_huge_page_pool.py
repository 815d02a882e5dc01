# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixture of huge pages, on a kernel that has less memory in one piece than is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.fixtures import huge_pages


class ShortPool:
    """Stands for /proc/sys/vm/nr_hugepages: gives what there is, and says nothing of the rest."""

    def __init__(self, pages: int, most: int) -> None:
        self.pages, self.most = pages, most

    def read_text(self) -> str:
        return f"{self.pages}\n"

    def write_text(self, text: str) -> None:
        wanted = int(text)
        if wanted < 0:
            raise OSError(22, "Invalid argument")
        self.pages = min(wanted, self.most)


@pytest.mark.parametrize("before", [0, 3])
def test_a_pool_that_gives_fewer_pages_is_as_it_was(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ShortPool(before, most=40)
    monkeypatch.setattr(huge_pages, "_POOL", cast(Path, short))
    monkeypatch.setattr(huge_pages, "_LOCK", tmp_path / "lock")
    monkeypatch.setattr(
        huge_pages,
        "pool",
        lambda: {
            "Hugepagesize": huge_pages.HUGE >> 10,
            "HugePages_Free": short.pages,
            "HugePages_Rsvd": 0,
        },
    )
    with huge_pages.tried_huge_pages(64) as why:
        assert "40 free ones" in why
        assert short.pages == 40
    assert short.pages == before
