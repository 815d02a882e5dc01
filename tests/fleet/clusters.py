# SPDX-License-Identifier: GPL-2.0-or-later
"""Clusters for tests: one in this process, and one of processes as users start them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.closing import Closing
from tests.fleet.exchangers import DEADLINE_S, wait_until

TOP = Path(__file__).resolve().parents[2]
ALL = "LIVEDUMP_FLEET_DEATHS" in os.environ
"""`make test-fleet` takes all; `make test` one of each kind."""
long = pytest.mark.skipif(not ALL, reason="long: make test-fleet")
AS_ROOT = ["--allow-root"] if os.geteuid() == 0 else []


@contextmanager
def in_process(workers: int, *plugins: Any) -> Iterator[Any]:
    """A client of a cluster whose workers are threads of this process."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, processes=False, threads_per_worker=1, dashboard_address=None,
            protocol="tcp", silence_logs=50,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        for plugin in plugins:
            client.register_plugin(plugin)
        yield client


class ByHand(Closing):
    """`livedump fleet scheduler`, and `livedump fleet worker` for each host; None: without one."""

    def __init__(self, folder: Path, hosts: Sequence[Path | None], *options: str) -> None:
        self.folder = folder
        self.options = list(options) or ["--insecure"]
        self.logs: dict[str, Path] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        words = ["--host", "127.0.0.1", "--port", "0"]
        self._start("scheduler", *words, *self.options, *AS_ROOT)
        self.address = self._address("scheduler")
        for i, host in enumerate(hosts):
            words = [self.address, "--name", f"worker{i}", *(["--host", str(host)] if host else [])]
            self._start(f"worker{i}", *words, *self.options, *AS_ROOT)
        for i in range(len(hosts)):
            self._address(f"worker{i}")

    def _start(self, name: str, *words: str) -> None:
        self.logs[name] = self.folder / f"{name}.log"
        command = [sys.executable, "-P", "-m", "livedumpfs.cli", "fleet"]
        with open(self.logs[name], "w") as log:
            self.processes[name] = subprocess.Popen(
                [*command, re.sub(r"\d+$", "", name), *words],
                env={**os.environ, "PYTHONPATH": str(TOP)}, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _address(self, name: str) -> str:
        """Where it listens, once it does."""
        kind = re.sub(r"\d+$", "", name)
        sentence = re.compile(rf"^{kind} at (\S+)$", re.MULTILINE)

        def ready() -> bool:
            assert self.processes[name].poll() is None, self.said()
            return sentence.search(self.logs[name].read_text()) is not None

        wait_until(ready, self.said)
        found = sentence.search(self.logs[name].read_text())
        assert found
        return found[1]

    def said(self) -> str:
        return "\n".join(f"{name}: {log.read_text()}" for name, log in self.logs.items())

    def client(self) -> Any:
        """In this process; of one without TLS."""
        from livedumpfs.fleet.cluster import connect

        return connect(self.address, None)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        self.processes[name].send_signal(number)
        self.processes[name].wait(DEADLINE_S)

    def close(self) -> None:
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(DEADLINE_S)
                raise
