# SPDX-License-Identifier: GPL-2.0-or-later
"""`--device` with what a real host is, and with what is none; hints as the interface has them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.cli.main import main
from livedumpfs.client import Client
from livedumpfs.errors import HostError, TargetError

Host = Any
"""RunningHost of conftest.py."""
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def host(run_host: Callable[..., Host]) -> Host:
    return run_host()


def test_a_host_by_each_of_its_names(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "link").symlink_to(host.mountpoint)
    monkeypatch.chdir(tmp_path)
    names = (
        host.device, host.mountpoint, f"{host.mountpoint}/", "mount-0", "./mount-0/livedump",
        "link", host.process.pid, "ledger",
    )  # fmt: skip
    for name in names:
        assert main(["status", "--device", str(name)]) == 0, name
        shown = capsys.readouterr().out.splitlines()[0].split(maxsplit=1)
        assert shown[0] == "device" and os.path.samefile(shown[1], host.device)
        with Client(str(name)) as client:
            client.read("control/state")


def test_what_is_no_host(host: Host, tmp_path: Path, capsys: Capture) -> None:
    """One sentence that says so: never the words of an ioctl, and no FIFO is waited for."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "livedump").touch()
    for name in ("fifo", "file", "full", "mount-0/mem", "mount-0/control/state"):
        assert main(["status", "--device", str(tmp_path / name)]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "is not a host's livedump file (" in said, name
        with pytest.raises(HostError) as caught:
            Client(str(tmp_path / name))
        assert caught.value.errno == errno.ENOTTY
    for name in ("/dev/null", "/dev/zero"):
        assert main(["status", "--device", name]) == 1
        assert f"{name} is not a host's livedump file (" in capsys.readouterr().err
    for name in (str(tmp_path), "/"):
        assert main(["status", "--device", name]) == 1
        said = capsys.readouterr().err
        assert said == (
            f"livedump: error: {name} is not the mount of a host (running: {host.device})\n"
        )


def test_force_as_each_interface_has_it(host: Host, tmp_path: Path, capsys: Capture) -> None:
    letter = tmp_path / "letter"
    letter.write_text("Dear reader")
    refused = f"cannot dump to {letter}: it is not empty and not a dump"
    for command in ("dump", "init"):
        assert main([command, str(letter), "--device", host.device]) == 1
        hinted = f"{refused} (use --force to overwrite it)"
        assert capsys.readouterr().err == f"livedump: error: {hinted}\n"
    with Client(host.device) as client, pytest.raises(TargetError) as caught:
        client.init(str(letter))
    assert str(caught.value) == f"{refused} (use force=True to overwrite it)"
    host.write("control/output", str(letter))
    with pytest.raises(FileExistsError):
        host.write("control/state", "1")
    assert host.read("control/error") == f"{refused} (use control/force to overwrite it)\n"
    host.write("control/force", "1")
    host.write("control/state", "1")
    host.write("control/state", "5")
