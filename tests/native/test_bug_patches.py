# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches of known bugs beside code that changes: they are refused by name, or written anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native.bug_patches import Bug, DoesNotApplyError, refresh

SOURCE = "int one;\nint two;\nint three;\nint bad = 0;\nint five;\nint six;\nint seven;\n"
PATCH = """SPDX-License-Identifier: GPL-2.0-or-later
Bug: the value is wrong
Case: none
Said: wrong
Options: -b 1

--- a/native/room/file.c
+++ b/native/room/file.c
@@ -1,7 +1,7 @@
 int one;
 int two;
 int three;
-int bad = 0;
+int bad = 1;
 int five;
 int six;
 int seven;
"""


@pytest.fixture
def bug(tmp_path: Path) -> Bug:
    file = tmp_path / "BAD.patch"
    file.write_text(PATCH)
    return Bug.read(file)


def tree(place: Path, text: str) -> Path:
    (place / "native" / "room").mkdir(parents=True)
    (place / "native" / "room" / "file.c").write_text(text)
    return place


def test_what_stands_above_the_patch(bug: Bug) -> None:
    assert (bug.name, bug.what, bug.case) == ("BAD", "the value is wrong", "none")
    assert (bug.said, bug.options) == ("wrong", ("-b", "1"))
    assert bug.changed() == [Path("native/room/file.c")]


def test_a_line_that_is_missing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "BAD.patch"
    file.write_text(PATCH.replace("Case: none\n", ""))
    with pytest.raises(ValueError, match=r"BAD\.patch.*Case"):
        Bug.read(file)


def test_lines_that_have_moved_are_found(bug: Bug, tmp_path: Path) -> None:
    top = tree(tmp_path / "top", "int zero;\n" * 5 + SOURCE)
    bug.apply(top)
    assert "int bad = 1;" in (top / "native/room/file.c").read_text()


def test_a_neighbour_that_changed_is_refused_until_the_patch_is_refreshed(
    bug: Bug, tmp_path: Path
) -> None:
    changed = SOURCE.replace("three", "drei")
    top = tree(tmp_path / "top", changed)
    with pytest.raises(
        DoesNotApplyError, match=r"BAD\.patch does not apply.*(\n.*)*Hunk #1 FAILED"
    ):
        bug.apply(tree(tmp_path / "refused", changed))
    assert refresh(bug, top, tmp_path / "by_hand")
    assert not refresh(bug, top, tmp_path / "by_hand"), "a patch that fits is not changed"
    assert bug.file.read_text() == PATCH.replace("three", "drei")
    bug.apply(top)
    assert "int bad = 1;" in (top / "native/room/file.c").read_text()


def test_a_bug_that_no_longer_fits_is_put_in_by_hand(bug: Bug, tmp_path: Path) -> None:
    top = tree(tmp_path / "top", SOURCE.replace("int bad = 0;", "long bad = 2;"))
    by_hand = tmp_path / "by_hand"
    with pytest.raises(DoesNotApplyError, match="BAD"):
        refresh(bug, top, by_hand)
    rejected = by_hand / "BAD" / "native/room/file.c.rej"
    with pytest.raises(DoesNotApplyError, match="is still there"):
        refresh(bug, top, by_hand)
    rejected.unlink()
    copy = rejected.with_suffix("")
    copy.write_text(copy.read_text().replace("bad = 2", "bad = 3"))
    assert refresh(bug, top, by_hand)
    assert "-long bad = 2;\n+long bad = 3;\n" in bug.file.read_text()
    assert Bug.read(bug.file).what == bug.what
    assert not (by_hand / "BAD").exists()
