# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of arrays: none that is taken at first makes a dump that cannot be read later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dumpfile.describe import describe_dump, format_description
from livedumpfs.errors import UsageError

MIB = 1 << 20
ODD = (
    " ",
    "/",
    "..",
    "a/../b",
    "nul\0nul",
    "line\nline",
    "\x1b[2J",
    "x" * 300,
    "\u00e4\U0001f600",
    "\udcff",
)


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_any_text_is_a_name_everywhere(name: str, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    with Arena(MIB) as arena, LiveDump(arena) as live:
        arena.array("u2", 5, name=name)[:] = range(5)
        live.init(path)
        live.start()
        assert live.snapshot.array(name).tolist() == list(range(5))
        assert json.loads(json.dumps(live.snapshot.describe()))["arrays"][0]["name"] == name
        live.sweep()
        assert live.finish(300) == "consistent"
    with open_dump(path) as dump:
        assert [one.name for one in dump.arrays] == [name]
        assert dump.array(name).tolist() == list(range(5))
        said = format_description(describe_dump(dump))
        lines = [line for line in said.splitlines() if line.startswith("arrays")]
        assert len(lines) == 1 and lines[0].isprintable()
        with Arena.load(dump) as loaded:
            assert loaded.arrays[name].tolist() == list(range(5))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "an array's name cannot be empty (None: it gets none)"),
        (b"name", "an array's name must be text, not bytes"),
        (5, "an array's name must be text, not int"),
        ("taken", "the arena has an array named 'taken' already"),
    ],
)
def test_what_is_no_name_is_refused_as_that(name: object, said: str) -> None:
    with Arena(MIB) as arena:
        arena.array("u1", 1, name="taken")
        with pytest.raises(UsageError) as caught:
            arena.array("u1", 1, name=name)  # type: ignore[arg-type]
        assert str(caught.value) == said and isinstance(caught.value, ValueError)
        assert [one.name for one in arena.named] == ["taken"]


@pytest.mark.parametrize("dtype", ["S0", "U0", "V0"])
def test_an_array_of_nothing_gets_no_name(dtype: str, tmp_path: Path) -> None:
    """A dump that listed it could not be opened."""
    with Arena(MIB) as arena:
        with pytest.raises(UsageError, match="holds nothing"):
            arena.array(dtype, 3, name="nothing")
        assert LiveDump(arena).save(tmp_path / "dump") == "consistent"
    with open_dump(tmp_path / "dump") as dump:
        assert dump.arrays == ()
