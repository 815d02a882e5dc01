# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that tests fork (tests/fixtures/forks.py) is what one is that they execute."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import forks
from tests.fixtures.forks import LIVEDUMP, Forked, ForkServer, start
from tests.fixtures.program_files import program_command

DEADLINE_S = 300.0


def begin(kind: str, words: list[str], **more: Any) -> subprocess.Popen[Any]:
    """`kind`: "forked" or "executed"."""
    if kind == "executed":
        return subprocess.Popen(words, **more)
    process = start(words, **more)
    assert isinstance(process, Forked)
    return process


def told(folder: Path, *words: str, alone: bool = False) -> list[str]:
    command = program_command(__file__, "what_it_was_given.py", str(folder / "told"), *words)
    return [command[0], *(["-P"] if alone else []), *command[1:]]


@pytest.fixture(params=["forked", "executed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("session", [True, False], ids=["session", "no-session"])
@pytest.mark.parametrize("form", ["file", "file-P", "text"])
def test_it_finds_the_same(tmp_path: Path, form: str, session: bool) -> None:
    command = told(tmp_path, "says", alone=form == "file-P")
    if form == "text":
        command[1:2] = ["-c", Path(command[1]).read_text()]
    read, write = os.pipe()
    found, said = [], []
    try:
        for kind in ("executed", "forked"):
            process = begin(
                kind, command, cwd=tmp_path, text=True, pass_fds=[write], start_new_session=session,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={
                    **os.environ, "HOME": "\udce4/home", "ITS_OWN": "1",
                    "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}",
                },
            )  # fmt: skip
            said.append((process.communicate("in\n", timeout=DEADLINE_S), process.returncode))
            found.append(json.loads((tmp_path / "told").read_text()))
    finally:
        os.close(read)
        os.close(write)
    assert said == [(("out in\n", "err\n"), 0)] * 2
    for one in found:
        one["files"] = [file.partition(":")[0] for file in one["files"]]
        if form != "file-P":  # the server's -P is read no more
            del one["flags"]
    assert write in found[0]["fds"]
    assert found[1] == found[0]


@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        (["exits", "7"], 7, ""),
        (["complains"], 1, "a sentence\n"),
        (["raises"], 1, "ValueError: a bug\n"),
        (["dies"], -signal.SIGKILL, ""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_its_end(kind: str, tmp_path: Path, words: list[str], code: int, err: str) -> None:
    with begin(kind, told(tmp_path, *words), stderr=subprocess.PIPE, text=True) as process:
        said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == process.poll() == process.wait(DEADLINE_S) == code
    assert said.endswith(err)
    assert not Path(f"/proc/{process.pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal(kind: str, tmp_path: Path, number: int) -> None:
    command = told(tmp_path, "waits")
    with begin(
        kind, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "waits\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == -number
        process.send_signal(number)  # to nothing


def test_one_that_nothing_waited_for_keeps_its_id(kind: str, tmp_path: Path) -> None:
    with begin(kind, told(tmp_path, "exits", "3")) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        end = time.monotonic() + DEADLINE_S
        while (state := stat.read_text().rpartition(")")[2].split()[0]) != "Z":
            assert time.monotonic() < end, state
            time.sleep(0.01)
        assert process.poll() == 3
        assert not stat.exists()


def test_a_command(kind: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LIVEDUMP_PYTHON": sys.executable}
    for word, code in (("--version", 0), ("verify", 2)):
        command = [LIVEDUMP, word]
        with begin(
            kind, command, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == code
        assert (out.startswith("livedump ") and not err) if word == "--version" else err


def test_several_threads_start_and_wait(tmp_path: Path) -> None:
    codes: dict[int, int] = {}

    def one(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        with begin("forked", told(folder, "exits", str(number))) as process:
            codes[number] = process.wait(DEADLINE_S)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert codes == {number: number for number in range(8)}


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ([sys.executable, "-I", "-c", ""], {}),
        ([sys.executable, "-X", "dev", "-m", "livedumpfs.cli", "--version"], {}),
        ([LIVEDUMP, "--version"], {"env": {**os.environ, "LIVEDUMP_PYTHON": "/bin/true"}}),
        ([LIVEDUMP, "--version"], {"env": {**os.environ, "PYTHONHASHSEED": "7"}}),
        ([LIVEDUMP, "--version"], {"env": {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}}),
        ([LIVEDUMP, "--version"], {"env": {**os.environ, "PYTHONPATH": "/nowhere"}}),
        ([LIVEDUMP, "--version"], {"umask": 0o77}),
    ],
    ids=["isolated", "option", "other-python", "hash", "locale", "path", "umask"],
)
def test_what_a_fork_could_not_be_is_executed(command: list[str], more: dict[str, Any]) -> None:
    if command[0] == LIVEDUMP:
        more = {**more, "env": {"LIVEDUMP_PYTHON": sys.executable, **more.get("env", os.environ)}}
    process = start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    assert type(process) is subprocess.Popen
    process.wait(DEADLINE_S)


def test_all_are_executed_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(forks.STARTS, "real")
    process = start(told(tmp_path, "exits", "0"))
    assert type(process) is subprocess.Popen
    assert process.wait(DEADLINE_S) == 0


def test_none_outlives_the_server_of_tests_that_died(tmp_path: Path) -> None:
    server = ForkServer()
    process = Forked(server, told(tmp_path, "waits"), stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "waits\n"
    server.close()
    assert not Path(f"/proc/{process.pid}").exists()
    process.stdout.close()
    process.returncode = -signal.SIGTERM  # nothing is left that would say so
