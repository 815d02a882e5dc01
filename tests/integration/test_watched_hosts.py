# SPDX-License-Identifier: GPL-2.0-or-later
"""`--metrics` and `--log` of whole hosts: what is served and logged, what is refused before a
machine is started, and that both end with the host."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from commands import Commands, needs_fuse, one_sentence
from prometheus_client.parser import text_string_to_metric_families

from livedumpfs.client import Client
from livedumpfs.mount.metrics_address import MetricsAddress
from tests.fixtures.ipv6 import has_ipv6
from tests.fixtures.journald import Journald
from tests.fixtures.program_files import program_command

DEADLINE_S = 300.0
SMALL = ("--ram", "16M", "--idle", "--quiesce-deadline", "60")
pytestmark = needs_fuse


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    with contextlib.closing(Commands(tmp_path)) as found:
        yield found


class Announced:
    """A host that runs, and the lines that it printed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said: dict[str, str] = {}
        assert process.stdout
        for line in iter(process.stdout.readline, b""):
            word, _, rest = line.decode().rstrip("\n").partition(" ")
            self.said[word] = rest
            if "device" in self.said and (word == "metrics" or not self.has_metrics):
                return
        raise AssertionError(process.communicate()[1])

    @property
    def has_metrics(self) -> bool:
        return "--metrics" in self.process.args  # type: ignore[operator]

    @property
    def device(self) -> str:
        return self.said["device"]

    def end(self) -> str:
        """Its standard error."""
        self.process.send_signal(signal.SIGTERM)
        err = self.process.communicate(timeout=DEADLINE_S)[1].decode()
        assert self.process.returncode == 0, err
        return err


def scrape(url: str) -> str:
    place = urlsplit(url)
    client = http.client.HTTPConnection(place.hostname or "", place.port, timeout=DEADLINE_S)
    with contextlib.closing(client):
        client.request("GET", place.path)
        found = client.getresponse()
        assert found.status == 200, found.read()
        return found.read().decode()


def value(text: str, name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found


@pytest.mark.parametrize("where", ["0", "[::1]:0"])
def test_a_scrape_is_what_the_mount_says(where: str, commands: Commands, tmp_path: Path) -> None:
    if where.startswith("[") and not has_ipv6:
        pytest.skip("no IPv6 here")
    host = Announced(commands.begin("host", *SMALL, "--metrics", where))
    url = host.said["metrics"]
    assert urlsplit(url).hostname == ("::1" if where.startswith("[") else "127.0.0.1")
    assert value(scrape(url), "livedumpfs_dumps_total", verdict="consistent") == 0
    with Client(host.device) as client:
        client.init(str(tmp_path / "out"))
        client.start()
        client.sweep()
        for _ in client.progress(timeout=DEADLINE_S):
            pass
        assert scrape(url) == Path(host.device).with_name("metrics").read_text()
        client.release()
    text = scrape(url)
    assert value(text, "livedumpfs_dumps_total", verdict="consistent") == 1
    at = value(text, "livedumpfs_last_consistent_timestamp_seconds")
    assert at == value(text, "livedumpfs_instant_timestamp_seconds") > 1e9
    # The end does not wait for a client that says nothing.
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=DEADLINE_S) as idle:
        host.end()
        with contextlib.suppress(ConnectionResetError):  # it was not accepted yet
            assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        scrape(url)


def test_without_the_option_nothing_listens(commands: Commands) -> None:
    host = Announced(commands.begin("host", *SMALL))
    assert "metrics" not in host.said
    pid = host.process.pid
    sockets = {os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()}
    assert not any(one.startswith("socket:") for one in sockets)
    host.end()


COMMANDS: list[tuple[str, Callable[[Path], list[object]]]] = [
    ("host", lambda mark: ["host", *SMALL]),
    ("qemu", lambda mark: ["qemu", "--", "touch", mark]),
    ("attach", lambda mark: ["attach", mark]),
]


def with_options(words: list[object], *options: str) -> list[object]:
    return [words[0], *options, *words[1:]]


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[one[0] for one in COMMANDS])
def test_a_port_in_use_is_said_before_the_machine_starts(
    name: str, words: Callable[[Path], list[object]], commands: Commands, tmp_path: Path
) -> None:
    mark, place = tmp_path / "mark", tmp_path / "mount"
    place.mkdir()
    with MetricsAddress().listen() as other:
        port = str(other.getsockname()[1])
        line = with_options(words(mark), "--metrics", port, "--mount", str(place))
        code, out, err = commands.run(*line)
    assert (code, out) == (1, "")
    assert one_sentence(err) == (
        f"livedump: error: cannot serve metrics at 127.0.0.1:{port}: "
        f"{os.strerror(errno.EADDRINUSE)} (another program listens there; port 0 takes a free one)"
    )
    assert not mark.exists() and not place.is_mount()


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[one[0] for one in COMMANDS])
def test_a_bad_address_is_a_mistake_of_usage(
    name: str, words: Callable[[Path], list[object]], commands: Commands, tmp_path: Path
) -> None:
    line = with_options(words(tmp_path / "mark"), "--metrics", "localhost:9105")
    code, out, err = commands.run(*line)
    assert (code, out) == (2, "")
    assert "'localhost' is not an IP address" in one_sentence(err)
    assert not (tmp_path / "mark").exists()


# --------------------------------------------------------------------------- the journal


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    with Journald(tmp_path / "journal") as found:
        yield found


def logging(journald: Journald, kind: str, *words: str) -> dict[str, object]:
    """How Commands.begin starts a host that logs there."""
    command = program_command(
        __file__, "logging_host.py", str(journald.path), kind, "host", *SMALL, *words
    )
    return {"program": command}


@pytest.mark.parametrize("kind", ["service", "shell"])
def test_each_dump_has_its_records(
    kind: str, commands: Commands, journald: Journald, tmp_path: Path
) -> None:
    words = () if kind == "service" else ("--log", "journal")
    host = Announced(commands.begin(**logging(journald, kind, *words)))
    started = journald.take()
    assert started["LIVEDUMP_EVENT"] == b"host-start"
    assert started["LIVEDUMP_MOUNTPOINT"] == os.path.dirname(host.device).encode()
    odd = tmp_path / os.fsdecode(b"a\nPRIORITY=0\n\xff")
    assert commands.run("dump", "--device", host.device, odd)[0] == 0
    init, start, finish, release = (journald.take() for _ in range(4))
    assert [one["LIVEDUMP_EVENT"] for one in (init, start, finish, release)] == [
        b"init", b"start", b"finish", b"release",
    ]  # fmt: skip
    ids = {one["LIVEDUMP_DUMP_ID"] for one in (init, start, finish, release)}
    assert len(ids) == 1 and len(ids.pop()) == 32
    assert int(start["LIVEDUMP_PAUSE_NS"]) > 0
    assert finish["LIVEDUMP_VERDICT"] == b"consistent"
    assert finish["LIVEDUMP_TARGET"] == os.fsencode(odd)
    assert [one["PRIORITY"] for one in (init, start, finish, release)] == [b"6", b"6", b"5", b"6"]
    assert all(one["SYSLOG_IDENTIFIER"] == b"livedump" for one in (started, init, release))
    code, _, err = commands.run("dump", "--device", host.device, "/no/where/out")
    assert code == 1
    failed = journald.take()
    assert (failed["LIVEDUMP_EVENT"], failed["LIVEDUMP_STEP"]) == (b"failed", b"INIT")
    assert failed["LIVEDUMP_REASON"].decode() in err and failed["PRIORITY"] == b"3"
    host.end()
    assert journald.take()["LIVEDUMP_EVENT"] == b"host-end"


def test_a_service_that_is_told_not_to(commands: Commands, journald: Journald) -> None:
    host = Announced(commands.begin(**logging(journald, "service", "--log", "none")))
    assert commands.run("start", "--device", host.device, "--no-target")[0] == 0
    host.end()
    journald.expect_nothing()


def test_a_journal_that_hangs_holds_up_nothing(commands: Commands, journald: Journald) -> None:
    """It takes no record at all, from the first one that it has no room for on."""
    host = Announced(commands.begin(**logging(journald, "shell", "--log", "journal")))
    room = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    with Client(host.device) as client:
        for _ in range(1 + min(room, 1000) // 2):
            client.init(None)
            client.start()
            client.release()
    host.end()


def test_no_journal_is_said_before_the_machine_starts(commands: Commands, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for name in ("host", "qemu", "attach"):
        words = dict(COMMANDS)[name](tmp_path / "mark")
        program = program_command(__file__, "logging_host.py", str(gone), "shell")
        line = with_options(words, "--log", "journal")
        code, out, err = commands.run(*line, program=program)
        assert (code, out) == (1, "")
        assert one_sentence(err) == (
            f"livedump: error: cannot log to systemd's journal: {gone}: No such file or directory"
        )
    assert not (tmp_path / "mark").exists()


def test_an_error_of_a_service_has_its_priority(commands: Commands, tmp_path: Path) -> None:
    """Also of a command that serves nothing: the journal takes the number away."""
    for kind, mark in (("service", "<3>"), ("shell", "")):
        program = program_command(__file__, "logging_host.py", str(tmp_path / "x"), kind)
        code, _, err = commands.run("info", "/no/where", program=program)
        assert code == 1 and err.startswith(f"{mark}livedump: error: cannot read dump /no/where")
