# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump fleet`, as users type it: with TLS, and a worker that is a member of its host's group
and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from livedumpfs.cli.main import main
from livedumpfs.proc import proc_text
from livedumpfs.stores import open_store
from tests.fixtures.program_files import program_file
from tests.fleet.clusters import ALL, AS_ROOT, TOP, ByHand

USER, GROUP = 65534, 54322
RUN = """
def run(dump):
    return {"machine": dump.machine_name, "sum": int(dump.array("accounts").sum())}
"""


def end(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main(["fleet", *words])
    except SystemExit as error:
        code = int(str(error.code))
    said = capsys.readouterr()
    return code, said.out, said.err


class OfUser(ByHand):
    """Its workers are an unprivileged user's."""

    def _start(self, name: str, *words: str) -> None:
        if name == "scheduler":
            super()._start(name, *words)
            return
        self.logs[name] = self.folder / f"{name}.log"
        program = str(program_file(__file__, "worker_of_user.py"))
        given = [word for word in words if word not in AS_ROOT]
        path = os.pathsep.join(map(str, (TOP, TOP / "bench")))
        with open(self.logs[name], "w") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, program, str(USER), str(GROUP), *given],
                env={**os.environ, "PYTHONPATH": path}, cwd="/", stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="the scheduler is not root")
def test_a_scheduler_that_is_root_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Also before it listens anywhere: that address is no computer's."""
    words = ["scheduler", "--insecure", "--host", "192.0.2.1"]
    code, _, said = end(capsys, *words)
    assert code == 2 and "the scheduler runs as root" in said and "--allow-root" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user: needs root")
def test_a_worker_needs_no_more_than_the_group(
    open_folder: Path, exchangers: Callable[..., Any], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """TLS, a store, and all commands about it."""
    hosts = exchangers(2, group=GROUP, folder=open_folder)
    tls, place = open_folder / "tls", open_folder / "dumps"
    place.mkdir()
    os.chown(place, USER, USER)
    monkeypatch.setenv("LIVEDUMP_FLEET_TLS", str(tls))
    with OfUser(open_folder, [], "--tls", str(tls)) as cluster:
        assert cluster.address.startswith("tls://")
        for file in tls.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600
            os.chown(file, USER, USER)
        tls.chmod(0o755)
        for i, host in enumerate(hosts.mounts):
            cluster._start(f"worker{i}", cluster.address, "--host", str(host), *cluster.options)
        for name in ("worker0", "worker1"):
            cluster._address(name)
            status = proc_text(f"/proc/{cluster.processes[name].pid}/status")
            assert re.search(rf"^Uid:\s+{USER}\s+{USER}", status, re.M)
            assert re.search(r"^CapEff:\s+0+$", status, re.M)
        monkeypatch.setenv("LIVEDUMP_FLEET", cluster.address.removeprefix("tls://"))
        code, out, err = end(capsys, "members")
        assert (code, len(re.findall(r"^vm\d@", out, re.M))) == (0, 2), err
        to = ("--to", f"store:{place}/store", "--deadline", "30")
        code, out, err = end(capsys, "dump", *to, "--barrier")
        assert code == 0, err
        assert "one for all members: none ran until all were armed" in out
        assert "100%, 12 MiB of 12 MiB, 2 of 2 members" in err
        manifest = re.search(r"^manifest  (\S+)$", out, re.M)
        assert manifest
        assert all(one.stat().st_uid == USER for one in (place / "store").glob("*.caibx"))
        with open_store(str(place / "store")) as store:  # so that forget counts them apart
            records = [store.record(name) for name in store.names()]
            assert {one.identity for one in records if one} == set(map(str, hosts.mounts))
        check_readers(capsys, open_folder, manifest[1])
        code, _, err = end(capsys, "members", "--insecure")
        assert code == 1 and "cannot reach the scheduler tcp://" in err
        code, _, err = end(capsys, "members", "--tls", str(open_folder / "none"))
        assert code == 1 and "cannot read" in err and "--insecure" in err
    hosts.runs_on()


def check_readers(capsys: pytest.CaptureFixture[str], folder: Path, manifest: str) -> None:
    """What list, show and map say of it."""
    place = manifest.partition("#")[0]
    code, out, _ = end(capsys, "list", place)
    assert code == 0 and re.search(r"  barrier  consistent  2 members  ", out), out
    code, out, _ = end(capsys, "show", manifest)
    assert code == 0 and out.count("  consistent  stood ") == 2, out
    (folder / "sums.py").write_text(RUN)
    table = folder / "sums.parquet"
    code, out, err = end(capsys, "map", str(folder / "sums.py"), manifest, "--parquet", str(table))
    assert code == 0, err
    assert re.match(r"member +machine +sum\nvm0@\S+ +exchanger +\d+\nvm1@", out), out
    rows = parquet.read_table(table).to_pylist()
    assert [row["machine"] for row in rows] == ["exchanger"] * 2
    if not ALL:
        return
    code, out, _ = end(capsys, "map", "shared", manifest)
    assert code == 0 and re.search(r"^all +3072 ", out, re.M), out
    code, out, _ = end(capsys, "map", "diff", manifest, "--before", manifest)
    assert code == 0 and out.count(" 1536   0 ") == 2, out
    (folder / "wrong.py").write_text("def run(dump):\n    raise KeyError('no such thing')\n")
    code, _, err = end(capsys, "map", str(folder / "wrong.py"), manifest)
    assert code == 1 and err.count("KeyError: 'no such thing'") == 2, err
    (folder / "drgn.py").write_text("rows = [{'pages': 1, 'size': prog.platform.arch.name}]\n")
    code, out, err = end(capsys, "map", str(folder / "drgn.py"), manifest)
    assert code == 0 and out.count("X86_64") == 2, out + err


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("members", 2, "no scheduler is named"),
        ("members --scheduler tcp://127.0.0.1:9", 2, "is not encrypted: anyone on the network"),
        ("members --scheduler 127.0.0.1:9 --insecure", 1, "cannot reach the scheduler tcp://"),
        ("dump --to s3://x/y --scheduler x --insecure", 2, "write store:s3://x/y"),
        ("dump --to store:x --format kdump --scheduler x", 2, "a store takes dumps of format elf"),
        ("dump --to x --barrier --at-clock", 2, "not allowed with"),
        ("list {0}/none", 1, "none"),
        ("show {0}/none", 1, "none"),
        ("show {0}/no.fleet.json", 3, "is not the manifest of a fleet dump"),
        ("map diff {0}/no.fleet.json", 2, "--before goes with diff"),
        ("worker --insecure", 2, "no scheduler is named"),
    ],
)
def test_refusals(
    line: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("LIVEDUMP_FLEET", raising=False)
    monkeypatch.setattr("livedumpfs.fleet.cluster.CONNECT_S", 0.5)
    (tmp_path / "no.fleet.json").write_text("{}")
    found, _, err = end(capsys, *line.format(tmp_path).split())
    assert found == code, err
    assert said in err and err.count("\n") == 1, err


@pytest.mark.skipif(os.geteuid() != 0, reason="is not root")
def test_a_worker_of_root_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = end(capsys, "worker", "127.0.0.1:1", "--insecure")
    assert code == 2 and "runs as root (start it as a user in the --group of the host" in err
