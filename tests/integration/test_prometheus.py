# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Prometheus and its promtool on a real host: the text of its metrics, the dashboard's
queries, the alerts (`make test-metrics`, which unpacks Debian's)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Commands, commands

TOP = Path(__file__).resolve().parents[2]
PROGRAMS = os.environ.get("LIVEDUMP_PROMETHEUS")
FOLDER = TOP / "dashboards"
DEADLINE_S = 300.0
ALERTS_TEST = Path(__file__).with_name("alerts_over_days.yml")
ROUNDS = 3
pytestmark = [
    pytest.mark.skipif(not PROGRAMS, reason="make test-metrics"),
    pytest.mark.together,
]


def promtool(*words: str | Path, text: str = "") -> str:
    """What it prints of good files. AssertionError: it complains."""
    done = subprocess.run(
        [TOP / str(PROGRAMS) / "promtool", *words],
        input=text, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """It scrapes one host, and answers queries."""

    def __init__(self, folder: Path, target: str) -> None:
        self.log = folder / "prometheus.log"
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"evaluation_interval": "200ms"}
        config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
        (job,) = config["scrape_configs"]
        job["scrape_interval"] = job["scrape_timeout"] = "200ms"
        job["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    TOP / str(PROGRAMS) / "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        found = self.wait_for(
            lambda: re.search(r'msg="Listening on" address=(\S+:[1-9]\d*)', self.log.read_text())
        )
        self.address = found[1]
        self.wait_for(lambda: 'msg="Server is ready' in self.log.read_text())

    def wait_for(self, look: Callable[[], Any]) -> Any:
        """What `look` finds, once it does."""
        end = time.monotonic() + DEADLINE_S
        while not (found := look()):
            assert time.monotonic() < end and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return found

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of now."""
        return list(self.ask("query", query=expression)["result"])

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A host that serves its metrics."""
    with commands(tmp_path_factory.mktemp("host")) as found:
        found.host("--ram", "16M", "--idle", "--quiesce-deadline", "60", "--metrics", "0")
        yield found


@pytest.fixture(scope="module")
def url(host: Commands) -> str:
    found = re.search(r"^metrics (http://\S+)$", (host.folder / "host.log").read_text(), re.M)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def prometheus(
    host: Commands, url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """It has seen the host, then some good dumps of it, one that fails and one that is broken
    off."""
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), urllib.parse.urlsplit(url).netloc)
    try:
        server.wait_for(lambda: server.query("livedumpfs_dumps_total"))
        for i in range(ROUNDS):
            assert host.run("dump", f"out{i}")[0] == 0
        assert host.run("dump", "/no/where/out")[0] == 1
        for step in (["init", "out"], ["start"], ["release"]):
            assert host.run(*step)[0] == 0
        server.wait_for(lambda: server.query('livedumpfs_dumps_total{verdict="incomplete"} == 1'))
        yield server
    finally:
        server.close()


def test_promtool_has_nothing_to_say_of_the_metrics(prometheus: Prometheus, url: str) -> None:
    """Names, units, help and types."""
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    assert text.count("\n# TYPE ") > 40
    assert promtool("check", "metrics", text=text) == ""


def test_it_has_scraped_what_has_happened(prometheus: Prometheus) -> None:
    (up,) = prometheus.query("up")
    assert up["value"][1] == "1" and up["metric"]["job"] == "livedumpfs"
    counts = {
        one["metric"]["verdict"]: int(one["value"][1])
        for one in prometheus.query("livedumpfs_dumps_total")
    }
    assert counts == {"consistent": ROUNDS, "torn": 0, "incomplete": 1}
    (failed,) = prometheus.query("livedumpfs_failed_steps_total > 0")
    assert (failed["metric"]["step"], failed["value"][1]) == ("INIT", "1")
    (state,) = prometheus.query("livedumpfs_state == 1")
    assert state["metric"]["livedumpfs_state"] == "UNINIT"
    (age,) = prometheus.query("time() - livedumpfs_last_consistent_timestamp_seconds")
    assert 0 < float(age["value"][1]) < 2 * DEADLINE_S
    kinds = {one["type"] for one in prometheus.ask("metadata")["livedumpfs_handler_seconds"]}
    assert kinds == {"histogram"}


DASHBOARD = json.loads((FOLDER / "livedumpfs.json").read_text())


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda one: str(one["title"]))
def test_each_query_of_the_dashboard_finds_something(
    panel: dict[str, Any], prometheus: Prometheus
) -> None:
    """With its variables as Grafana fills them in."""
    for target in panel["targets"]:
        query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "5m")
        found = prometheus.query(query)
        assert found, query
        labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert all(labels <= one["metric"].keys() for one in found), query


def test_the_choice_of_hosts(prometheus: Prometheus, url: str) -> None:
    """As label_values() asks."""
    found = prometheus.ask("label/instance/values", **{"match[]": "livedumpfs_info"})
    assert found == [urllib.parse.urlsplit(url).netloc]


def test_the_alerts_that_it_must_give(prometheus: Prometheus) -> None:
    """Of the dump that was broken off and of the step that has failed, and no others."""
    expected = {"LivedumpfsDumpNotConsistent", "LivedumpfsStepFailed"}

    def firing() -> set[str]:
        alerts = prometheus.ask("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    prometheus.wait_for(lambda: firing() == expected)
    (group,) = prometheus.ask("rules")["groups"]
    assert {one["health"] for one in group["rules"]} == {"ok"}


def test_the_files_for_prometheus() -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    number = sum(len(group["rules"]) for group in rules["groups"])
    assert f"{number} rules found" in promtool("check", "rules", FOLDER / "alerts.yml")
    assert "is valid" in promtool("check", "config", FOLDER / "prometheus.yml")


def test_the_alerts_over_days(tmp_path: Path) -> None:
    """Series of days that promtool makes up, and what each alert says of them and when."""
    cases = yaml.safe_load(ALERTS_TEST.read_text())
    tried = {one["alertname"] for test in cases["tests"] for one in test["alert_rule_test"]}
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    assert tried == {one["alert"] for one in rules}
    cases["rule_files"] = [str(FOLDER / "alerts.yml")]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(cases))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "alerts.yml")
