# SPDX-License-Identifier: GPL-2.0-or-later
"""A file of control/ that is opened with O_TRUNC and not written to, as `: > output` does."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.client import Client

Host = Any


@pytest.fixture
def host(module_host: Host) -> Host:
    return module_host


def shell(host: Host, command: str) -> str:
    """What it says; it must succeed."""
    done = subprocess.run(
        ["sh", "-ec", command], cwd=host.mountpoint / "control", capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_shell_empties_what_may_be_empty(host: Host) -> None:
    for name in ("output", "sidecar"):
        host.write(f"control/{name}", "/tmp/x")
        assert shell(host, f"cat {name}; : > {name}; cat {name}").strip() == "/tmp/x"
        assert shell(host, f"echo /tmp/y > {name}; cat {name}").strip() == "/tmp/y"
        os.truncate(host.mountpoint / "control" / name, 0)
        assert host.read(f"control/{name}").strip() == ""


def test_what_cannot_be_empty_keeps_its_value(host: Host) -> None:
    host.write("control/granule", "8192")
    assert shell(host, ": > granule; cat granule").strip() == "8192"
    assert shell(host, ": > state; head -1 state").strip() in ("0", "1")
    assert shell(host, "echo 4096 > granule; cat granule error").strip() == "4096"


def test_nothing_is_emptied_while_there_is_a_dump(host: Host, tmp_path: Path) -> None:
    host.write("control/output", str(tmp_path / "dump"))
    with Client(host.device) as client:
        client.init(None)
        try:
            with pytest.raises(OSError) as caught:
                os.close(os.open(host.mountpoint / "control/output", os.O_WRONLY | os.O_TRUNC))
            assert caught.value.errno == errno.EBUSY
            assert "cannot be changed while there is a dump" in host.read("control/error")
        finally:
            client.release()
    assert host.read("control/output").strip() == str(tmp_path / "dump")
    host.write("control/output", "")
