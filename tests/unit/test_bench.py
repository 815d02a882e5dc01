# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark suite: what it writes of what was measured. Figures themselves are not tested."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import computer
import measure_growth
import numpy as np
import pytest
import report
import suite
from measurement import Bar, Curve, Effort, Measurement, Plot
from results import Outcome, Results
from rich.console import Console

EFFORT = Effort(quick=True, largest=16 << 20)
HELD, MISSED = Bar("rate", 0.95, 0.9), Bar("stop, ms", 1.5, 1.0, at_least=False)


@pytest.fixture
def made_up() -> Results:
    """One measurement of two runs, one that failed, and one that is not there."""
    plot = Plot(
        "made-up",
        "Made up",
        "bytes",
        "ms",
        [Curve("ours", [1.0, 10.0], [2.0, 3.0], [1.5, 2.5], [2.5, 3.5])],
        log_x=True,
    )
    found = Measurement(
        "made", "Made | up", ["way", "ms"], [["a|b", "2"]], ["A note."], [HELD, MISSED], [plot]
    )
    found.samples = [{"way": "a", "ms": np.float64(2.5)}, {"way": "a", "counts": np.arange(2)}]
    outcomes = [Outcome("made", 1.5, 0.5, found), Outcome("broken", 0.1, 0.5, None, "OSError: no")]
    return Results(
        "bench/suite.py --quick",
        EFFORT,
        computer.describe(),
        "2026-01-01 00:00",
        outcomes,
        ["later"],
    )


def test_a_bar_holds_on_its_own_side() -> None:
    assert HELD.held and not MISSED.held
    assert Bar("ms", 1.0, 1.0, at_least=False).held and Bar("rate", 0.9, 0.9).held
    assert not Bar("rate", float("nan"), 0.9).held


def test_every_sample_and_the_computer_are_in_the_json(made_up: Results, tmp_path: Path) -> None:
    report.write(made_up, tmp_path, tmp_path)
    written = json.loads((tmp_path / report.SAMPLES).read_text())
    first, second = written["outcomes"]
    assert first["found"]["samples"] == [{"way": "a", "ms": 2.5}, {"way": "a", "counts": [0, 1]}]
    assert [bar["held"] for bar in first["found"]["bars"]] == [True, False]
    assert second["found"] is None and second["failed"] == "OSError: no"
    assert written["absent"] == ["later"]
    told = written["computer"]
    assert told["cpu"] and told["cores"] > 0 and told["memory"] >= told["available"] > 0


def test_the_page_tells_what_was_held_missed_failed_and_absent(
    made_up: Results, tmp_path: Path
) -> None:
    report.write(made_up, tmp_path, tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "| made | rate | 0.95 | at least 0.9 | held |" in page
    assert "| made | stop, ms | 1.5 | at most 1 | missed |" in page
    assert "| a\\|b | 2 |" in page, "a bar in a cell would begin another one"
    assert "A note." in page and "Failed: OSError: no" in page and "Not there: later." in page
    assert re.findall(r"\]\((.*)\)", page) == ["made-up.svg"]
    assert report.SAMPLES in page
    assert made_up.computer["kernel"] in page and "`bench/suite.py --quick`" in page


def test_plots_are_the_same_for_the_same_curves(made_up: Results, tmp_path: Path) -> None:
    plots = pytest.importorskip("plots", reason="matplotlib: make bench gets it")
    plot = made_up.measurements[0].plots[0]
    (tmp_path / "again").mkdir()
    file = plots.draw(plot, tmp_path)
    assert file.name == "made-up.svg"
    again = plots.draw(plot, tmp_path / "again")
    assert file.read_bytes() == again.read_bytes()
    text = file.read_text()
    assert all(word in text for word in (plot.title, plot.x, plot.y, "ours"))


def test_one_that_fails_or_is_not_there_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In processes of their own, as in a real run."""
    names = {"fine": "return Measurement('fine', 'Fine', ['pid'], [[str(os.getpid())]])",
             "exits": "sys.exit('no loop device')",
             "dies": "os.abort()"}  # fmt: skip
    for name, body in names.items():
        text = "import os, sys\nfrom measurement import Measurement\n"
        (tmp_path / f"measure_{name}.py").write_text(f"{text}def measure(effort): {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(suite, "HERE", tmp_path)
    with open(tmp_path / "terminal", "w") as terminal:
        found = suite.run(["exits", "dies", "later", "fine"], EFFORT, Console(file=terminal))
    assert found.absent == ["later"]
    exits, dies, fine = found.outcomes
    assert exits.failed == "SystemExit: no loop device" and "BrokenProcessPool" in dies.failed
    assert fine.found and fine.found.rows != [[str(os.getpid())]]
    shown = (tmp_path / "terminal").read_text()
    assert "no bench/measure_later.py" in shown and "no loop device" in shown and "Fine" in shown


def test_the_largest_arena_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, full in ((20 << 30, 16 << 30), (17 << 30, 8 << 30), (1 << 30, 1 << 30)):
        monkeypatch.setattr(computer, "memory", lambda free=free: {"MemAvailable": free})
        assert suite.largest(quick=False) == full
        assert suite.largest(quick=True) == 1 << 30


def test_the_exponent_is_that_of_the_power() -> None:
    slope, error = measure_growth.exponent([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0])
    assert slope == pytest.approx(2) and error == pytest.approx(0, abs=1e-6)
    assert np.isnan(measure_growth.exponent([1, 2], [1.0, 2.0])[0]), "two points fit any line"
    assert np.isnan(measure_growth.exponent([1, 2, 3], [1.0, 0.0, 1.0])[0])


def test_each_series_of_growth_changes_one_thing() -> None:
    """Made-up rounds; the row of the exponents tells what was put in."""
    for one in measure_growth.series(replace(EFFORT, largest=1 << 30)):
        values = [asdict(case)[one.name] for case in one.cases]
        assert len(values) == len(one.x) and len(set(values)) == len(values) > 1
        others = [{k: v for k, v in asdict(c).items() if k != one.name} for c in one.cases]
        assert others.count(others[0]) == len(others)
        rounds = [[measure_growth.Round([100], [7 * x], x * x)] for x in (1, 2, 4)]
        result = Measurement("growth", "", [])
        three = replace(one, x=(1, 2, 4))
        measure_growth.add(result, three, [measure_growth.Found.of(found) for found in rounds])
        assert [cell.split()[0] for cell in result.rows[-1][2:]] == ["0.00", "1.00", "2.00"]
        (plot,) = result.plots
        assert [curve.y for curve in plot.curves] == [[1, 1, 1], [1, 2, 4], [1, 4, 16]]


def test_a_tiny_measurement_of_memory() -> None:
    """Real dumps, and a fork: of each, what it took is counted."""
    outcome = suite.measure_apart("memory", EFFORT)
    assert outcome.found, outcome.failed
    assert all(len(row) == len(outcome.found.columns) for row in outcome.found.rows)
    taken = {sample["way"]: sample for sample in outcome.found.samples}
    assert set(taken) == {"swap, block", "fork"}
    for way, sample in taken.items():
        # Two more views, or those of a child, each with an entry of 8 bytes for every page.
        assert sample["tables"] >= sample["bytes"] // 4096 * 8, way
        assert sample["private"] > 0 and (sample["pool"] > 0) == (way != "fork"), sample
    assert len(outcome.found.bars) == 1
