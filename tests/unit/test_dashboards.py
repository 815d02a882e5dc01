# SPDX-License-Identifier: GPL-2.0-or-later
"""dashboards/: Grafana's own library reads the dashboard, and each query of it and of the alerts
names metrics and labels that a host exports. make test-metrics asks a real Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from livedumpfs import Arena, LiveDump, abi
from livedumpfs.control.metrics import PREFIX, metrics
from livedumpfs.control.tally import Tally

FOLDER = Path(__file__).resolve().parents[2] / "dashboards"
METRICS = (FOLDER.parent / "docs/metrics.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "livedumpfs.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text())
WORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "bool", "offset"}
"""Of PromQL, which are no names of metrics."""
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"instance", "job"}
VARIABLES = {"$instance": "x", "$__rate_interval": "1m"}


def panels() -> list[dict[str, Any]]:
    return list(DASHBOARD["panels"])


def queries() -> list[str]:
    """Each of them."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    rules = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    assert len(shown) > 20 and len(rules) > 5
    return [*shown, *rules]


def names(query: str) -> tuple[set[str], set[str]]:
    """The metrics, and the labels, that a query of PromQL names."""
    labels: set[str] = set()

    def matchers(found: re.Match[str]) -> str:
        labels.update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', found[0])))
        return " "

    def grouping(found: re.Match[str]) -> str:
        labels.update(re.findall(r"\w+", found[1]))
        return " "

    rest = re.sub(r'\{(?:[^{}"]|"[^"]*")*\}', matchers, query)
    rest = re.sub(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", grouping, rest)
    rest = re.sub(r"\[[^]]*\]", " ", rest)  # times
    found = set(re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", rest)) - WORDS
    return found, labels


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Name of a sample -> its labels, of each sample that a host has."""
    with Arena(1 << 20) as arena, LiveDump(arena) as dump:
        text = metrics(abi.State.UNINIT, dump, Tally().look()).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    assert len(found) > 40
    return found


def unknown(query: str, exported: dict[str, set[str]]) -> list[str]:
    """What it names and no host has."""
    found, labels = names(query)
    assert found, f"no metric in {query!r}"
    known = LABELS_OF_PROMETHEUS.union(*(exported.get(name, set()) for name in found))
    return sorted((found - exported.keys() - OF_PROMETHEUS) | (labels - known))


@pytest.mark.parametrize("query", queries())
def test_a_query_names_what_is_exported(query: str, exported: dict[str, set[str]]) -> None:
    assert unknown(query, exported) == []


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("livedumpfs_no_such_total", ["livedumpfs_no_such_total"]),
        ('rate(livedumpfs_faults{instance=~"$instance"}[5m])', ["livedumpfs_faults"]),
        ("sum by (le, nolabel) (rate(livedumpfs_handler_seconds_bucket[1h]))", ["nolabel"]),
        ('livedumpfs_dumps_total{state="x"} > 0', ["state"]),
        ("time() - livedumpfs_pause_seconds / other_metric", ["other_metric"]),
        ('livedumpfs_slots{instance="livedumpfs_none{}"}', []),
    ],
)
def test_one_that_does_not_is_found(
    query: str, wrong: list[str], exported: dict[str, set[str]]
) -> None:
    assert unknown(query, exported) == wrong


def test_grafanas_own_library_reads_it() -> None:
    """And gives back each member as it is: none is unknown to it, or of another type."""
    read = Dashboard.from_json(DASHBOARD)
    written = json.loads(json.dumps(read, cls=JSONEncoder))
    assert missing(DASHBOARD, written) == []
    assert len(read.panels or []) == len(panels())
    odd = {**DASHBOARD, "panes": [], "title": {"text": "x"}}
    written = json.loads(json.dumps(Dashboard.from_json(odd), cls=JSONEncoder))
    assert [one.partition(":")[0] for one in missing(odd, written)] == [".panes"]


def missing(before: Any, after: Any, at: str = "") -> list[str]:
    """Places of `before` that are not in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            place
            for key, value in before.items()
            for place in missing(value, after.get(key, "not there"), f"{at}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [place for i, pair in pairs for place in missing(*pair, f"{at}[{i}]")]
    return [] if before == after else [f"{at}: {before!r} is {after!r}"]


def test_its_panels_have_places_and_sources_of_their_own() -> None:
    ids = [one["id"] for one in panels()]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"] and panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert [one["refId"] for one in panel["targets"]] == sorted(
            {one["refId"] for one in panel["targets"]}
        )


def test_its_variables_are_those_that_it_uses() -> None:
    defined = {one["name"] for one in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used == defined
    query = next(one for one in DASHBOARD["templating"]["list"] if one["name"] == "instance")
    assert query["query"]["query"] == f"label_values({PREFIX}info, instance)"


def test_the_document_has_each_alert() -> None:
    section = METRICS.partition("\n### Alerts\n")[2].partition("\n## ")[0]
    said = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert said == [one["alert"] for one in rules]
    assert all(one["annotations"]["summary"] and one["labels"]["severity"] for one in rules)
