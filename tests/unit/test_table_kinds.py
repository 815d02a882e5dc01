# SPDX-License-Identifier: GPL-2.0-or-later
"""table.kinds: which pages were saved in which way."""

from __future__ import annotations

import itertools
import random

from livedumpfs.formats import table

PAGE = 4096


def test_each_granule_is_of_one_kind() -> None:
    entries = table.empty_entries(6)
    entries["state"] = [table.SAVED, table.SAVED, table.SAVED, table.HOLE, table.LOST, table.ARMED]
    entries["how"] = [table.BY_SWEEP, table.BY_FAULT, table.BY_STEAL, table.BY_SWEEP, 0, 0]
    found = table.kinds(entries, 4 * PAGE, 23 * PAGE)
    assert {name: (kind.granules, kind.pages) for name, kind in found.items()} == {
        "sweep": (1, [(0, 4)]),
        "fault": (1, [(4, 8)]),
        "steal": (1, [(8, 12)]),
        "hole": (1, [(12, 16)]),
        "lost": (1, [(16, 20)]),
        "missing": (1, [(20, 23)]),  # the last granule is shorter
    }


def test_runs_are_joined_and_bounded() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    states = [
        chooser.choice([table.SAVED, table.HOLE, table.LOST, table.ARMED]) for _ in range(999)
    ]
    entries = table.empty_entries(len(states))
    entries["state"] = states
    found = table.kinds(entries, PAGE, len(states) * PAGE)
    names = {"sweep": table.SAVED, "hole": table.HOLE, "lost": table.LOST, "missing": table.ARMED}
    for name, state in names.items():
        kind = found[name]
        pages = [page for first, end in kind.pages for page in range(first, end)]
        assert pages == [i for i, one in enumerate(states) if one == state]
        assert kind.granules == len(pages)
        assert kind.runs == len(kind.pages)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(kind.pages))
    cut = table.kinds(entries, PAGE, len(states) * PAGE, 3)["lost"]
    assert cut.pages == found["lost"].pages[:3]
    assert (cut.granules, cut.runs) == (found["lost"].granules, found["lost"].runs)


def test_a_table_of_one_kind() -> None:
    entries = table.empty_entries(3)
    found = table.kinds(entries, PAGE, 3 * PAGE)
    assert found.pop("missing").pages == [(0, 3)]
    assert all((kind.granules, kind.pages, kind.runs) == (0, [], 0) for kind in found.values())
