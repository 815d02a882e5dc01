# SPDX-License-Identifier: GPL-2.0-or-later
"""What docs/control.md and docs/cli.md say of a host, beside one: names of what there is, and how
commands end that no other test takes up."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from commands import end, one_sentence, wait_for

from livedumpfs import abi
from livedumpfs.cli import main as cli
from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import DumpSettings

pytestmark = pytest.mark.together  # they share a host

Host = Any
"""RunningHost of conftest.py."""
TOP = Path(__file__).resolve().parents[2]
CONTROL = (TOP / "docs" / "control.md").read_text()


def section(heading: str) -> str:
    return CONTROL.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def code(text: str) -> set[str]:
    return set(re.findall(r"`([\w.]+)`", text))


@pytest.fixture
def host(module_host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Without a dump; commands of this process find it."""
    monkeypatch.setenv("LIVEDUMP_DEVICE", module_host.device)
    with Client(module_host.device) as client:
        client.release()
    return module_host


# --------------------------------------------------------------- names of what there is


def test_the_tree_is_the_one_that_is_drawn(host: Host) -> None:
    drawn = CONTROL.partition("```\n")[2].partition("```")[0]
    rows = dict(re.findall(r"^  (\S+?)/? +(.*)$", drawn, re.M))
    with Client(host.device) as client:
        client.init(None)
        client.start()
        assert set(os.listdir(host.mountpoint)) == set(rows)
        shown = {name for name in re.split(r"[:, ]+", rows["dumps"]) if "." in name}
        assert set(os.listdir(host.mountpoint / "snapshot")) == {*shown, "vmcore"}
    assert set(os.listdir(host.mountpoint / "machine")) == set(rows["machine"].split(", "))


def test_stats_has_the_keys_that_are_told(host: Host) -> None:
    stats = json.loads(host.read("stats.json"))
    rows = dict(re.findall(r"^\| (`.+?) \| (.+) \|$", section("stats.json"), re.M))
    assert set().union(*map(code, rows)) == set(stats)
    assert set(stats["progress"]) <= code(rows["`progress`"])
    struct_ = (TOP / "native" / "ldfs.h").read_text()
    members = struct_.partition("typedef struct ldfs_counters {")[2].partition("}")[0]
    declared = re.findall(r"^\t\w+ (\w+)[\[;]", members, re.M)
    assert set(declared) == set(stats["counters"])
    names = {one.name for one in dataclasses.fields(DumpSettings)}
    assert set(stats["settings"]) == {*names, "output", "type"}


def test_info_has_the_keys_that_are_told(host: Host) -> None:
    table = section("snapshot/").partition("| key of info.json |")[2]
    keys = set().union(*map(code, re.findall(r"^\| (`.+?) \|", table, re.M)))
    small = InitOptions(granule=4096, pool=4096, spill_limit=4096)
    with Client(host.device) as client:
        client.init(None, small)
        client.start()
        wait_for(lambda: client.status().lost, client.status)  # the guest writes all the time
        info = json.loads(host.read("snapshot/info.json"))
        assert set(info) == keys
        assert (info["verdict"], info["so_far"]) == (None, "torn")
        first, after = info["lost"][0]
        assert 0 <= first < after <= (8 << 20) // 4096


def test_a_line_of_status_has_the_numbers_of_status(host: Host) -> None:
    with Client(host.device) as client:
        client.init(None)
        client.start()
        told = dict(word.split("=", 1) for word in host.read("livedump").split())
        status = client.status()
    assert told["state"] == status.state.name == "START"
    assert (told["verdict"], told["so_far"]) == ("-", status.so_far.name.lower())
    assert int(told["total"]) == status.bytes_total == 8 << 20
    assert told["target"] == "-"


def test_a_pointer_of_0_and_wrong_versions_are_told(host: Host) -> None:
    """INIT takes the target of control/output; EPROTO, EINVAL by what a program got wrong."""
    size = abi.payload_size(abi.INIT_TYPED)
    wrong = {
        errno.EPROTO: struct.pack("II", 2, 0),
        errno.EINVAL: struct.pack("II", 1, 0x100),
    }
    with open(host.device) as device:
        for number, head in wrong.items():
            with pytest.raises(OSError) as refused:
                fcntl.ioctl(device, abi.INIT_TYPED, bytearray(head.ljust(size, b"\0")))
            assert refused.value.errno == number
        with pytest.raises(OSError) as refused:
            fcntl.ioctl(device, abi.INIT, 0)
        assert refused.value.errno == errno.EINVAL
    assert (
        host.read("control/error") == "INIT: no target is set (write its path to control/output)\n"
    )


# ------------------------------------------------------------------ how commands end


@pytest.mark.parametrize("command", ["dump", "init"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--granule 5000", "granule of 5000 bytes is not possible"),
        ("--granule 128M", "a power of two from 4096 to 67108864"),
        ("--format kdump --level 77", "zstd has no level 77"),
        ("--format kdump --compress lzo --level 3", "lzo has no level 3"),
        ("--format kdump --threads 65", "65 threads are not possible"),
    ],
)
def test_a_value_that_no_host_takes_is_usage(
    command: str, options: str, said: str, host: Host, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    target = tmp_path / "dump"
    assert end(f"{command} {target} {options}") == 2
    assert said in one_sentence(capsys.readouterr().err)
    assert not target.exists()


def test_what_only_this_host_does_not_take_is_no_usage(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(f"dump {tmp_path}") == 1
    host.write("control/type", "memdump\n")
    try:
        assert end(f"dump {tmp_path / 'dump'}") == 1
    finally:
        host.write("control/type", "auto\n")
    assert "control/type is memdump" in capsys.readouterr().err


def test_standard_output_has_no_other_name(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where INIT is refused."""
    for command in ("dump", "init"):
        assert cli.main([command, "-", "--format", "raw"]) == 1
        said = one_sentence(capfd.readouterr().err)
        assert "cannot dump to standard output: it is a pipe" in said and "/proc/" not in said
