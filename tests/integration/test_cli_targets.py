# SPDX-License-Identifier: GPL-2.0-or-later
"""What `livedump dump` does with TARGET: none, a pattern, standard output of every kind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import open_dump
from tests.fixtures import forks

Host = Any
DEADLINE_S = 300.0
COMMAND = [sys.executable, "-m", "livedumpfs.cli", "dump"]


@pytest.fixture
def host(run_host: Callable[..., Host]) -> Host:
    return run_host()


def dump(host: Host, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return forks.run(
        [*COMMAND, "--device", host.device, *words], env=host.environment, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S, check=False, **how,
    )  # fmt: skip


def test_without_target_it_is_that_of_control(host: Host, tmp_path: Path) -> None:
    done = dump(host, stdout=subprocess.PIPE)
    assert (done.returncode != 0, done.stderr.count("\n")) == (True, 1), done.stderr
    assert "INIT: no target is set (write its path to control/output)" in done.stderr
    host.write("control/output", f"{tmp_path / 'out'}\n")
    done = dump(host, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert f"target    {tmp_path / 'out'}\n" in done.stdout
    with open_dump(tmp_path / "out") as found:
        assert found.verdict == "consistent"


def test_dates_and_how_many_are_kept(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    (folder / "vm-1.elf").write_text("not ours\n")
    seen = []
    for _ in range(3):
        done = dump(host, str(folder / "vm-{date}.elf"), "--keep", "2", stdout=subprocess.PIPE)
        assert done.returncode == 0, done.stderr
        seen.append(set(os.listdir(folder)) - {"vm-1.elf"})
    assert [len(one) for one in seen] == [1, 2, 2]
    assert not seen[0] & seen[2], "the oldest is the one that goes"
    assert f"livedump: removed {folder}/{min(seen[0])}\n" in done.stderr
    assert (folder / "vm-1.elf").read_text() == "not ours\n"
    done = dump(host, str(folder / "vm.elf"), "--keep", "2", stdout=subprocess.PIPE)
    assert done.returncode == 2 and "there is no {date} in the name" in done.stderr
    assert not (folder / "vm.elf").exists()


@pytest.mark.parametrize("sort", ["closed", "read-only", "terminal", "raw"])
def test_standard_output_that_takes_no_dump_is_called_by_its_name(host: Host, sort: str) -> None:
    format = "raw" if sort == "raw" else "kdump"
    words = ("-", "--format", format)
    if sort == "closed":
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "--device", host.device, *words],
            env=host.environment, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S,
            check=False,
        )  # fmt: skip
    elif sort == "terminal":
        master, slave = os.openpty()
        done = dump(host, *words, stdout=slave)
        os.close(slave)
        os.close(master)
    elif sort == "raw":
        done = dump(host, *words, stdout=subprocess.PIPE)
    else:
        fd = os.open(__file__, os.O_RDONLY)
        done = dump(host, *words, stdout=fd)
        os.close(fd)
    expected = {
        "closed": "cannot dump to standard output: it is closed",
        "terminal": "a dump does not go to a terminal",
        "raw": "cannot dump to standard output: it is a pipe, and format raw needs a device",
    }
    assert expected.get(sort, "cannot dump to standard output: it is not open") in done.stderr
    assert done.returncode != 0 and "/proc/" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error" in line]) == 1
    host.runs_on()


@pytest.mark.parametrize("sort", ["file", "null", "socket", "full"])
def test_standard_output_of_other_kinds(host: Host, tmp_path: Path, sort: str) -> None:
    words = ("-", "--format", "kdump")
    if sort == "socket":
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [*COMMAND, "--device", host.device, *words], env=host.environment,
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()
        got = 0
        while piece := ours.recv(1 << 20):
            got += len(piece)
        ours.close()
        _, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, said
        assert got > 4096
        return
    place = {"null": "/dev/null", "full": "/dev/full"}.get(sort, str(tmp_path / "out"))
    with open(place, "wb") as out:
        done = dump(host, *words, stdout=out)
    assert "/proc/" not in done.stderr, done.stderr
    if sort == "full":
        assert done.returncode != 0
        assert "standard output: No space left on device" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    if sort == "file":
        assert (tmp_path / "out").read_bytes()[:12] == b"makedumpfile"
