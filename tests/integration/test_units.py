# SPDX-License-Identifier: GPL-2.0-or-later
"""The units of systemd in systemd/: what systemd itself says of them, and that the commands in them
are those of the command line. `make test-deb` runs them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from livedumpfs.cli.main import build_parser

TOP = Path(__file__).resolve().parents[2]
UNITS = sorted((TOP / "systemd").glob("livedump-*"))
DEFAULT = re.compile(r'"([A-Z_]+)=([^"]*)"|([A-Z_]+)=(\S*)')


def defaults(unit: str) -> dict[str, str]:
    """Of the variables that the configuration of a name may set."""
    found: dict[str, str] = {}
    for line in re.findall(r"^Environment=(.*)$", unit, re.M):
        for quoted, its, name, value in DEFAULT.findall(line):
            found[quoted or name] = its or value
    return found


def commands(unit: str) -> list[list[str]]:
    """As systemd starts them for the name vm1."""
    made = []
    for line in re.findall(r"^ExecStart=/usr/bin/livedump (.*)$", unit, re.M):
        for name, value in defaults(unit).items():
            line = line.replace("${" + name + "}", value).replace("$" + name, value)
        for letter, value in {"%t": "/run", "%S": "/var/lib", "%i": "vm1"}.items():
            line = line.replace(letter, value)
        made.append(shlex.split(line))
    return made


def test_systemd_takes_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    for unit in UNITS:  # a name, and a program that is there
        text = unit.read_text().replace("/usr/bin/livedump", "/usr/bin/env")
        (tmp_path / unit.name.replace("@", "@vm1")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "livedump" in line]
    assert not ours, done.stderr


def test_their_commands_are_those_of_the_command_line() -> None:
    found = [words for unit in UNITS for words in commands(unit.read_text())]
    assert [words[0] for words in found] == ["dump", "forget", "gc", "host"]
    parser = build_parser()
    parsed = [parser.parse_args(words) for words in found]
    assert (parsed[0].device, parsed[0].target) == (
        "/run/livedump/vm1",
        "store:/var/lib/livedump/vm1",
    )
    assert parsed[1].keep_last == 7
    assert parsed[3].mount == parsed[0].device


def test_the_example_sets_what_they_read() -> None:
    text = (TOP / "systemd/example.conf").read_text()
    known = {name for unit in UNITS for name in defaults(unit.read_text())}
    assert set(re.findall(r"^#?([A-Z_]+)=", text, re.M)) == known
