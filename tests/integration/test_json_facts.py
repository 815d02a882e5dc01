# SPDX-License-Identifier: GPL-2.0-or-later
"""`--json`: what the commands print is what docs/json.md says, member by member."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from livedumpfs.cli.facts import SCHEMA
from tests.fixtures.shells import Shell

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "true or false": (bool,),
    "list": (list,),
    "object": (dict,),
}


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def members(name: str) -> dict[str, str]:
    """Member -> its type, of a section."""
    return dict(re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", section(name), re.MULTILINE))


def expect(found: dict[str, Any], command: str, *sections: str) -> None:
    """The members of these sections, and no others."""
    assert (found.pop("schema"), found.pop("command")) == (SCHEMA, command)
    told = {key: kind for one in sections for key, kind in members(one).items()}
    needed = {key for key, kind in told.items() if "may be missing" not in kind}
    assert needed <= set(found) <= set(told)
    for key, value in found.items():
        kind = told[key].removesuffix(", may be missing")
        if value is None:
            assert kind.endswith(" or null"), key
        else:
            assert type(value) in TYPES[kind.removesuffix(" or null")], key


def test_the_schema_is_the_documents() -> None:
    assert f"`{SCHEMA}`" in DOCUMENT


def test_what_commands_print_is_documented(shell: Shell) -> None:
    shell.host("--ram", "8M", "--idle")

    def told(*words: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(shell.run(*words, "--json", code=code)[0])
        return found

    for target in ("a", "b"):
        found = told("dump", target)
        assert found["verdict"] == "consistent" and found["target"].endswith(target)
        expect(found, "dump", "status")
    expect(told("status"), "status", "status")
    [host] = told("list")["hosts"]
    assert host["state"] == "UNINIT" and host["problem"] is None
    assert {f"`{name}`" for name in host} - set(re.findall("`[a-z_]+`", section("list"))) == set()
    expect(told("info", "a"), "info", "info")
    expect(told("verify", "a"), "verify", "info", "verify")
    expect(told("compare", "a", "a"), "compare", "compare")
    for out in ("kdump", "store:s"):
        found = told("convert", "a", out)
        assert found["out"] == out and found["verdict"] == "consistent"
        assert ("new_chunks" in found) == (out == "store:s")
        expect(found, "convert", "convert")
    assert "does not go with" in shell.fails("convert", "a", "-", "--json", code=2)
    shell.run("dump", "store:s", "--quiet")
    expect(told("list", "s"), "list", "list of a store")
    expect(told("verify", "s"), "verify", "verify of a store")
    expect(told("forget", "s", "latest"), "forget", "forget")
    expect(told("gc", "s"), "gc", "gc")
    expect(told("doctor"), "doctor", "doctor")


def test_steps_of_a_barrier(shell: Shell) -> None:
    shell.host("--ram", "8M", "--idle")
    shell.run("init", "--no-target")
    for step in (("hold", "--deadline", "60s"), ("arm",), ("go",)):
        found = json.loads(shell.run(*step, "--json")[0])
        expect(found, step[0], "hold, arm, go")
    assert found["ran_wall_ns"] >= found["stood_wall_ns"] > 0


def test_single_steps(shell: Shell) -> None:
    shell.host("--ram", "8M", "--idle")

    def told(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(shell.run(*words, "--json")[0])
        return found

    found = told("start", "--no-target")
    assert found["state"] == "START" and found["pause"]["pause_ns"] > 0
    expect(found, "start", "status")
    found = told("release")
    assert found["state"] == "UNINIT" and found["released"]
    expect(found, "release", "status")
    shell.run("init", "--no-target")
    found = told("start", "--at", "+1s")
    assert found["dump_id"] == found["id"] and found["instant_wall_ns"] > 0
    expect(found, "start", "status", "hold, arm, go")


def test_quiet_prints_nothing_of_a_good_dump(shell: Shell) -> None:
    shell.host("--ram", "8M", "--idle")
    assert shell.run("dump", "a", "--quiet") == ("", "")
    assert "consistent" in shell.run("-q", "info", "a")[0]


def test_hosts_are_listed_with_what_they_do(shell: Shell) -> None:
    assert shell.run("list")[1].startswith("livedump: no host is running")
    _, device = shell.host("--ram", "8M", "--idle")
    shell.run("start", "--no-target")
    head, row = shell.run("list")[0].splitlines()
    assert head.split() == ["host", "pid", "machine", "state", "done", "verdict", "target"]
    name = Path(device).parent.name
    assert row.split() == [name, name[5:], "ledger", "START", "-", "consistent", "so", "far", "-"]
    assert "the next step is `livedump sweep`" in shell.fails("start")
