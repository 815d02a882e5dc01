# SPDX-License-Identifier: GPL-2.0-or-later
"""`metrics` of a host's mount: what Prometheus reads, and that it says what stats.json says."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from livedumpfs import __version__
from livedumpfs.client import Client
from livedumpfs.control.metrics import FAMILIES, PREFIX
from livedumpfs.dump.counters import Counters

pytestmark = pytest.mark.together  # they share a host

Host = Any
"""RunningHost of conftest.py."""
DEADLINE = 300.0
DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()


def families(text: str) -> dict[str, Metric]:
    """By name without the prefix."""
    return {one.name.removeprefix(PREFIX): one for one in text_string_to_metric_families(text)}


def value(family: Metric) -> float:
    """Of one without labels."""
    (sample,) = family.samples
    assert not sample.labels
    return sample.value


def chosen(family: Metric) -> set[str]:
    """What a family of states says is the case."""
    return {one.labels[family.name] for one in family.samples if one.value == 1}


@pytest.fixture(scope="module")
def told(module_host: Host, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """stats.json and metrics of one dump, while nothing of it changes: it is sealed."""
    with Client(module_host.device) as client:
        client.init(str(tmp_path_factory.mktemp("metrics") / "out"))
        client.start()
        client.sweep()
        for _ in client.progress(timeout=DEADLINE):
            pass
        try:
            return json.loads(module_host.read("stats.json")), module_host.read("metrics")
        finally:
            client.release()


def test_each_counter_is_there_with_its_unit(told: tuple[Any, str]) -> None:
    stats, text = told
    found, counters = families(text), stats["counters"]
    apart = {"handler_ns", "handler_sum_ns", "failure", "tracking", "since"}
    assert set(FAMILIES) == {field.name for field in dataclasses.fields(Counters)} - apart
    assert counters["faults"] and counters["by_sweep"] and counters["instant_wall_ns"]
    for member, family in FAMILIES.items():
        one = found[family.name]
        assert one.type == family.kind and one.documentation == family.help
        scale = 1e-9 if member.endswith("_ns") else 1
        assert value(one) == pytest.approx(counters[member] * scale, rel=1e-9), member
        # Base units, and the suffix that says so.
        assert family.name.endswith("_seconds") == member.endswith("_ns")


def test_state_verdict_progress_and_failure(told: tuple[Any, str]) -> None:
    stats, text = told
    found = families(text)
    assert chosen(found["state"]) == {stats["state"]} == {"FINISH"}
    assert {one.labels[found["state"].name] for one in found["state"].samples} >= {
        "UNINIT",
        "SWEEP",
    }
    assert chosen(found["verdict"]) == {stats["verdict"]} == {"consistent"}
    for name, key in (("memory", "total"), ("memory_done", "done"), ("memory_lost", "lost")):
        assert value(found[f"{name}_bytes"]) == stats["progress"][key]
    assert value(found["lost_pages"]) == value(found["failed"]) == 0
    assert value(found["failure_errno"]) == stats["counters"]["failure"]["error"] == 0
    (info,) = found["info"].samples
    assert info.labels == {"version": __version__, "machine": "ledger"} and info.value == 1


def test_the_handlers_times_are_a_histogram(told: tuple[Any, str]) -> None:
    """Cumulative, by upper bound in seconds; count and sum are those of the core."""
    stats, text = told
    counters = stats["counters"]
    family = families(text)["handler_seconds"]
    assert family.type == "histogram"
    found = [one for one in family.samples if one.name.endswith("_bucket")]
    bounds = [float(one.labels["le"]) for one in found]
    assert bounds == sorted(bounds) and bounds[-1] == float("inf")
    assert bounds[:-1] == pytest.approx([2 ** (i + 1) / 1e9 for i in range(39)])
    so_far = 0
    for bucket, count in zip(found, counters["handler_ns"], strict=True):
        so_far += count
        assert bucket.value == so_far
    rest = {one.name.rpartition("_")[2]: one.value for one in family.samples}
    assert rest["count"] == so_far == counters["faults"]
    assert rest["sum"] == pytest.approx(counters["handler_sum_ns"] / 1e9)
    # The sum lies between those of the lower and of the upper bounds.
    low = sum(count << i for i, count in enumerate(counters["handler_ns"]))
    assert low <= counters["handler_sum_ns"] <= 2 * low
    assert counters["handler_sum_ns"] >= counters["stall_max_ns"] > 0


def rows(text: str) -> list[list[str]]:
    """The table of docs/metrics.md as it has to be: name, type, unit, meaning of each metric."""
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert helps.keys() == types.keys()
    units = {name: name.removesuffix("_total").rpartition("_")[2] for name in types}
    return [
        [
            f"`{name}`",
            kind,
            units[name] if units[name] in ("seconds", "bytes") else "1",
            helps[name],
        ]
        for name, kind in types.items()
    ]


def test_the_document_has_each_metric_with_its_unit_and_meaning(told: tuple[Any, str]) -> None:
    section = DOCUMENT.partition("\n### The table\n")[2].partition("\n##")[0]
    table = re.findall(r"^\| (`livedumpfs_.*) \|$", section, re.MULTILINE)
    cells = [[one.strip() for one in line.split(" | ")] for line in table]
    assert [line[:4] for line in cells] == rows(told[1])
    members = {
        line[0].strip("`").removeprefix(PREFIX).removesuffix("_total"): line[4] for line in cells
    }
    assert {name: members[one.name] for name, one in FAMILIES.items()} == {
        name: f"`{name}`" for name in FAMILIES
    }


def test_a_sealed_dump_counts_before_it_is_released(told: tuple[Any, str]) -> None:
    stats, text = told
    found = families(text)
    counts = {one.labels["verdict"]: one.value for one in found["dumps"].samples}
    assert counts == {"consistent": 1, "torn": 0, "incomplete": 0}
    assert set(found["failed_steps"].samples[0].labels) == {"step"}
    at = value(found["last_consistent_timestamp_seconds"])
    assert at == pytest.approx(stats["counters"]["instant_wall_ns"] / 1e9)


def test_no_program_waits_for_the_library_before_it_is_needed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, livedumpfs.mount.host, livedumpfs.cli.main\n"
         "print([one for one in sys.modules if one.startswith('prometheus')])"],
        capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"
