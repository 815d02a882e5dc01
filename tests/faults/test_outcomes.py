# SPDX-License-Identifier: GPL-2.0-or-later
"""All ways in which a command ends beside a host, and its exit code: the table of docs/cli.md."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import expect_incomplete
from commands import SLOW, Commands, commands, end, needs_fuse, one_sentence, wait_for

from livedumpfs.abi import State
from livedumpfs.cli import main as cli
from livedumpfs.client import Client
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import HostError

pytestmark = [needs_fuse, pytest.mark.together]  # they share a host


def test_hosts_that_cannot_be(tmp_path: Path) -> None:
    with commands(tmp_path) as some:
        begun = [
            some.begin("host", "--ram", "4M", "--mount", "/no/where"),
            some.begin(
                "qemu", "--mount", tmp_path, "--", "/no/where/qemu-system-x86_64", "-m", "64"
            ),
        ]
        for process in begun:
            code, _, err = some.end(process)
            assert code == 1 and one_sentence(err)


def test_a_signal_takes_away_what_was_begun(tmp_path: Path) -> None:
    with commands(tmp_path) as some:
        process = some.begin("convert", "-", "out", "--format", "kdump", stdin=subprocess.PIPE)
        wait_for((tmp_path / "out").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 143
        assert process.stderr.read() == b"livedump: error: ended by SIGTERM\n"
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A host of 8 MiB that writes now and then."""
    with commands(tmp_path_factory.mktemp("outcomes")) as some:
        some.host("--ram", "8M", "--dirty", "60%", "--idle")
        yield some


@pytest.fixture
def calm(tmp_path: Path) -> Iterator[Commands]:
    """A host that leaves its memory to the sweep, and so to the sweep's rate."""
    (tmp_path / "calm").mkdir()
    with commands(tmp_path / "calm") as some:
        some.host("--ram", "8M", "--idle")
        yield some


@pytest.fixture
def restless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """A host that writes all the time."""
    (tmp_path / "restless").mkdir()
    with commands(tmp_path / "restless") as some:
        some.host("--ram", "8M", "--dirty", "60%")
        monkeypatch.setenv("LIVEDUMP_DEVICE", some.device)
        yield some


@pytest.fixture
def host(live: Commands, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """It, without a dump; commands in this process find it too."""
    live.release()
    monkeypatch.setenv("LIVEDUMP_DEVICE", live.device)
    monkeypatch.chdir(live.folder)
    yield live
    live.release()


def worth(path: Path) -> str:
    with open_dump(path) as dump:
        return dump.verdict


def test_a_dump_step_by_step(host: Commands, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    for step, code in (
        ("start", 1), ("sweep", 1), ("finish", 1), ("release", 0), ("status", 0),
        (f"init {target}", 0), (f"init {target}", 1), ("sweep", 1), ("start", 0), ("finish", 1),
        ("start", 1), ("sweep", 0), ("finish", 0), ("status", 0), ("uninit", 0), ("finish", 1),
    ):  # fmt: skip
        assert end(step) == code, step
    assert worth(target) == "consistent"
    assert end(f"dump {tmp_path / 'next'}") == 0
    assert end("start --no-target") == 0


@pytest.mark.parametrize("command", ["dump", "init"])
def test_a_target_that_is_refused(command: str, host: Commands, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear reader")
    for target in (tmp_path, tmp_path / "letter", "/no/where/x", "/dev/null"):
        assert end(f"{command} {target}") == 1
    assert cli.main([command, ""]) == 2
    assert host.state() in (State.UNDEFINED, State.UNINIT)


def test_start_that_is_refused(
    host: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no dump then."""

    def refuse(client: Client) -> None:
        raise HostError("a vCPU does not stop")

    monkeypatch.setattr(Client, "start", refuse)
    assert end(f"dump {tmp_path / 'dump'}") == 1
    assert end("start") == 1
    assert end("start --no-target") == 1


def test_a_torn_dump(restless: Commands, tmp_path: Path) -> None:
    how = "--policy fail --granule 4K --pool 16K --sweep-rate 8M"
    assert end(f"dump {tmp_path / 'dump'} {how}") == 3
    assert worth(tmp_path / "dump") == "torn"
    assert [end(line) for line in (f"init {tmp_path / 'x'} {how}", "start", "sweep")] == [0, 0, 0]
    assert end("finish") == 3


def limited(host: Commands, tmp_path: Path) -> Iterator[Path]:
    """The host may write no file longer than 1 MiB (EFBIG)."""
    pid = host.begun[0].pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        yield tmp_path
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def full(host: Commands, tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB (ENOSPC)."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", small], check=True)
    try:
        yield small
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(
    ("short_of", "format"), [(limited, "kdump"), (full, "kdump"), (full, "raw")]
)
def test_a_target_that_ends_too_early(
    short_of: Callable[[Commands, Path], Iterator[Path]], format: str,
    host: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Found out after START: a dump, and not a consistent one. `--force`: it is not foreseen."""
    for place in short_of(host, tmp_path):
        how = f"--format {format} --force" + (" --compress none" * (format == "kdump"))
        assert end(f"dump {place / 'dump'} {how}") == 3
        assert re.search("No space left|File too large", one_sentence(capsys.readouterr().err))
        assert end(f"info {place / 'dump'}.incomplete") == 3
        host.release()


def test_released_by_another_program(calm: Commands, tmp_path: Path) -> None:
    dumping = calm.begin("dump", tmp_path / "dump", *SLOW)
    calm.reached(State.SWEEP)
    waiting = calm.begin("finish")
    assert calm.run("finish", "--timeout", "0.1")[0] == 1  # it goes on
    # Both have looked: `finish` shows the state when it begins.
    assert waiting.stderr.readline().startswith(b"finish ")
    calm.release()
    for process in (dumping, waiting):
        code, _, err = calm.end(process)
        assert code == 3 and "is incomplete: the dump was released meanwhile" in one_sentence(err)
    expect_incomplete(tmp_path / "dump")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_dump_that_a_signal_ends(number: int, code: int, calm: Commands, tmp_path: Path) -> None:
    dumping = calm.begin("dump", tmp_path / "dump", *SLOW)
    calm.reached(State.SWEEP)
    waiting = calm.begin("finish")
    assert waiting.stderr.readline().startswith(b"finish ")
    waiting.send_signal(number)
    assert calm.end(waiting)[0] == code
    assert calm.state() is State.SWEEP  # a command that only waits ends nothing
    dumping.send_signal(number)
    ended, _, err = calm.end(dumping)
    assert ended == code and "is incomplete" in one_sentence(err)
    assert calm.state() is State.UNINIT
    expect_incomplete(tmp_path / "dump")


def test_init_to_a_pipe(host: Commands) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        piped = host.begin("init", "-", "--format", "kdump")
        host.reached(State.INIT)
        piped.send_signal(number)
        assert host.end(piped)[0] == code
        host.reached(State.UNINIT)
    piped = host.begin("init", "-", "--format", "kdump")
    host.reached(State.INIT)
    host.release()
    assert piped.wait(300) == 3


def test_a_signal_that_is_ignored_stays_so(calm: Commands, tmp_path: Path) -> None:
    """As under nohup."""
    dumping = calm.begin(
        "dump", tmp_path / "dump", *SLOW,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    calm.reached(State.SWEEP)
    dumping.send_signal(signal.SIGHUP)
    assert calm.state() is State.SWEEP
    dumping.send_signal(signal.SIGTERM)
    assert calm.end(dumping)[0] == 143


def test_a_verdict_stands_when_the_release_fails(
    host: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As when the host dies after FINISH: neither its figures nor its answer are needed."""

    def gone(*_: object) -> None:
        raise HostError("the host is dead")

    for name in ("release", "stats"):
        monkeypatch.setattr(Client, name, gone)
    assert end(f"dump {tmp_path / 'dump'}") == 0
    assert "livedump: not released: the host is dead" in capsys.readouterr().err
    monkeypatch.undo()


def test_released_after_its_seal(
    host: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another program, between FINISH and the next look: the dump is whole."""
    progress = Client.progress

    def look_late(client: Client, *rest: Any, **more: Any) -> Iterator[Any]:
        looks = progress(client, *rest, **more)
        yield next(looks)
        host.reached(State.FINISH)
        host.release()
        yield from looks

    monkeypatch.setattr(Client, "progress", look_late)
    assert end(f"dump {tmp_path / 'dump'} --sweep-rate 2M") == 0
    assert worth(tmp_path / "dump") == "consistent"


def test_a_host_that_dies(tmp_path: Path) -> None:
    with commands(tmp_path) as some:
        host = some.host("--ram", "8M", "--idle")
        dumping = some.begin("dump", "dump", *SLOW)
        some.reached(State.SWEEP)
        waiting = some.begin("finish")
        assert waiting.stderr.readline().startswith(b"finish ")
        host.kill()
        for process in (dumping, waiting):
            code, _, err = some.end(process)
            assert code == 3 and "its host is dead" in one_sentence(err)
        expect_incomplete(tmp_path / "dump")
        assert some.run("status")[0] == 1
        assert some.run("dump", "other")[0] == 1
        subprocess.run(["fusermount", "-u", "-z", str(tmp_path / "mount")], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_mount_ends_by_a_signal(
    number: int, write_dump: Callable[..., Any], tmp_path: Path
) -> None:
    write_dump(tmp_path / "good", bytes(8192))
    (tmp_path / "dir").mkdir()
    with commands(tmp_path) as some:
        process = some.begin("mount", "good", "dir")
        assert process.stdout.readline() == b"snapshot dir/snapshot\n"
        process.send_signal(number)
        assert some.end(process)[0] == 0
