# SPDX-License-Identifier: GPL-2.0-or-later
"""What INIT takes from the options of `livedump host`: for programs that say nothing but a path."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs import abi
from livedumpfs.cli.defaults import default_output, default_settings
from livedumpfs.cli.main import build_parser
from livedumpfs.cli.main import main as livedump
from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import DumpSettings
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import HostError, UsageError
from tests.fixtures import forks

DEADLINE_S = 300
Hosts = Callable[..., str]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Hosts]:
    """host(*options) -> its livedump file."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    place = tmp_path / "mount"
    place.mkdir()
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> str:
        command = ["host", "--ram", "16M", "--idle", "--mount", str(place), *options]
        started.append(
            forks.start(
                [sys.executable, "-P", "-m", "livedumpfs.cli", *command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
                env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
            )
        )  # fmt: skip
        output = started[0].stdout
        assert output
        for line in output:
            if line.startswith("device "):
                return line.split()[1]
        raise AssertionError("the host ended")

    try:
        yield start
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=DEADLINE_S)


def old_sequence(device: str, path: str | int) -> None:
    """As programs for the kernel patches do it."""
    with open(device) as file:
        fcntl.ioctl(file, abi.INIT, path if isinstance(path, int) else path.encode() + b"\0")
        for step in (abi.START, abi.SWEEP, abi.RELEASE):
            fcntl.ioctl(file, step)


def test_an_old_client_gets_raw(host: Hosts, tmp_path: Path) -> None:
    device = host("--format", "raw", "--granule", "8K", "--output", "usual")
    old_sequence(device, str(tmp_path / "named"))
    old_sequence(device, 0)
    for name in ("named", "usual"):  # the host's own directory, not the caller's
        path = tmp_path / name
        assert path.stat().st_size == 16 << 20, "offset = physical address"
        with open_dump(path) as dump:
            assert (dump.format, dump.verdict, dump.granule_size) == ("raw", "consistent", 8192)
            assert path.read_bytes()[:4096] == dump.read_physical(0, 4096)
    control = Path(device).parent / "control"
    assert (control / "format").read_text().split()[0] == "raw"
    assert (control / "output").read_text() == f"{tmp_path / 'usual'}\n"
    # A typed INIT still has its say.
    with Client(device) as client:
        client.init(str(tmp_path / "typed"), InitOptions(format=abi.Format.ELF))
        assert (tmp_path / "typed.incomplete").read_bytes()[:4] == b"\x7fELF"
        client.release()


def test_a_host_that_nobody_may_hold(host: Hosts) -> None:
    with Client(host("--longest-hold", "0")) as client:
        dump_id = client.init_as(None, None)
        with pytest.raises(HostError, match="HOLD: this machine may not be held at all") as caught:
            client.hold(dump_id, 0.001)
        assert caught.value.errno == errno.EPERM and client.stats()["held"] is None
        assert client.start_as(dump_id).instant_wall_ns
        client.release_as(dump_id)


def parsed(*options: str) -> argparse.Namespace:
    return build_parser().parse_args(["host", *options])


def test_every_option_is_the_setting_of_its_name() -> None:
    args = parsed(
        "--format", "kdump", "--compress", "zlib", "--level", "3", "--threads", "2",
        "--policy", "spill", "--arming", "mprotect", "--backend", "uffd", "--granule", "64K",
        "--pool", "8M", "--spill-limit", "16M", "--sweep-rate", "1M", "--deadline", "3",
        "--max-age", "5min", "--buffered", "--force", "--quiesce-deadline", "0.5",
        "--init-deadline", "7",
    )  # fmt: skip
    assert default_settings(args) == DumpSettings(
        format="kdump", compression="zlib", level=3, threads=2, policy="spill", arming="mprotect",
        backend="uffd", granule=65536, pool=8 << 20, spill_limit=16 << 20, sweep_rate=1 << 20,
        stall_deadline=3.0, max_age=300.0, buffered=True, force=True, quiesce_deadline=0.5,
        init_deadline=7.0,
    )  # fmt: skip
    assert default_settings(parsed()) == DumpSettings()
    assert default_output(parsed()) == ""
    sidecar = default_settings(parsed("--format", "raw", "--sidecar", "x")).sidecar
    assert sidecar == os.path.abspath("x")
    tail = default_settings(parsed("--format", "raw", "--table", "tail"))
    assert (tail.format, tail.table) == ("raw", "tail")


@pytest.mark.parametrize("command", ["host", "qemu"])
@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (("--format", "elf", "--level", "3"), "--level goes with --format kdump"),
        (("--format", "kdump", "--level", "77"), "zstd has no level 77"),
        (("--granule", "5000"), "granule of 5000 bytes is not possible"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_machine_runs(
    command: str,
    options: tuple[str, ...],
    cause: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ("--", "qemu-system-x86_64") if command == "qemu" else ()
    assert livedump([command, *options, *more]) in (1, 2)
    assert cause in capsys.readouterr().err
    with pytest.raises(UsageError):
        default_settings(parsed(*options))
