# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion: what is offered, and the shells that ask for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from livedumpfs.cli import candidates as offered
from livedumpfs.cli.candidates import candidates
from livedumpfs.cli.completion_command import SHELLS
from livedumpfs.cli.main import main
from livedumpfs.cli.outcome import Exit
from livedumpfs.hosts import registry
from tests.fixtures import forks

TOP = Path(__file__).resolve().parents[2]
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_livedump 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
DEADLINE_S = 100


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a host in its registry, a store with two dumps, and an empty folder."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(registry, "SYSTEM_DIRECTORY", str(tmp_path / "system"))
    monkeypatch.chdir(tmp_path)
    host = {
        "pid": os.getpid(), "start_time": registry.start_time(os.getpid()),
        "mountpoint": "/mnt/vm-seven", "machine": "ledger-seven",
    }  # fmt: skip
    (tmp_path / "livedumpfs").mkdir()
    (tmp_path / "livedumpfs" / "1.json").write_text(json.dumps(host))
    for name in ("store-a/one.caibx", "store-a/two.caibx", "store-b/text"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_hosts_by_name_and_by_their_machine(place: Path) -> None:
    assert candidates("hosts", "vm") == ["vm-seven"]
    assert candidates("hosts", "led") == ["ledger-seven"]
    assert candidates("hosts", "x") == []


def test_dumps_of_a_store(place: Path) -> None:
    assert candidates("dumps", "sto") == ["store-a#latest"]
    assert candidates("dumps", "store-a#") == ["store-a#one", "store-a#two", "store-a#latest"]
    assert candidates("dumps", "store-a#t") == ["store-a#two"]
    assert candidates("dumps", "store-b#") == []


def test_targets_are_block_devices_with_a_size_and_stores(place: Path) -> None:
    for name, size in (("loop0", "0"), ("loop1", "8"), ("ram0", "8"), ("sda1", "8")):
        (place / "sys/class/block" / name).mkdir(parents=True)
        (place / "sys/class/block" / name / "size").write_text(size)
    assert list(offered.targets("/dev", place)) == ["/dev/loop1", "/dev/sda1", "store:"]
    assert candidates("targets", "store:st") == ["store:store-a", "store:store-b"]
    assert candidates("targets", "st") == ["store:"]


@pytest.mark.parametrize("words", [["nonsense", "x"], ["dumps", "[#"], []])
def test_a_question_that_makes_no_sense_is_no_failure(words: list[str]) -> None:
    done = forks.run(
        [sys.executable, "-m", "livedumpfs.cli", "__complete", *words],
        cwd=TOP, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def scripts(place: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    made = {}
    for shell in SHELLS:
        assert main(["completion", shell]) == Exit.DONE
        made[shell] = place / f"livedump.{shell}"
        made[shell].write_text(capsys.readouterr().out)
    return made


def environment(place: Path) -> dict[str, str]:
    path = f"{TOP / 'scripts'}:{os.environ['PATH']}"
    mine = {"PATH": path, "XDG_RUNTIME_DIR": str(place), "HOME": str(place)}
    return {**os.environ, **mine, "LIVEDUMP_PYTHON": sys.executable}


def run(place: Path, *command: str) -> list[str]:
    done = subprocess.run(
        command, cwd=place, env=environment(place), capture_output=True, text=True,
        timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout.split("\n")[:-1]


def test_bash_completes(place: Path, scripts: dict[str, Path]) -> None:
    def found(*words: str) -> list[str]:
        line = ("livedump", *words)
        return run(place, "bash", "--norc", "-c", BASH, "bash", str(scripts["bash"]), *line)

    assert found("fin") == ["finish"]
    assert found("fleet", "sche") == ["scheduler"]
    assert found("dump", "--pol") == ["--policy"]
    assert found("dump", "--policy", "b") == ["block"]
    assert found("dump", "--device", "vm") == ["vm-seven"]
    assert set(found("info", "store-a#")) == {"store-a#one", "store-a#two", "store-a#latest"}
    assert set(found("dump", "sto")) == {"store:", "store-a", "store-b"}


def test_fish_completes(place: Path, scripts: dict[str, Path]) -> None:
    if not shutil.which("fish"):
        pytest.skip("no fish (scripts/setup packages)")

    def found(line: str) -> set[str]:
        program = f"source {scripts['fish']}; complete -C 'livedump {line}'"
        return {one.partition("\t")[0] for one in run(place, "fish", "--no-config", "-c", program)}

    assert found("fin") == {"finish"}
    assert found("dump --device vm") == {"vm-seven"}
    assert {"store-a#one", "store-a#two"} <= found("info store-a#")


def test_zsh_reads_its_script(place: Path, scripts: dict[str, Path]) -> None:
    """And the function in it gives compadd the hosts."""
    if not shutil.which("zsh"):
        pytest.skip("no zsh (scripts/setup packages)")
    run(place, "zsh", "-f", "-n", str(scripts["zsh"]))
    program = f"""
    compdef() {{ :; }}; compadd() {{ shift; print -l -- "$@"; }}; _shtab_livedump() {{ :; }}
    PREFIX=vm; source {scripts["zsh"]} >/dev/null 2>&1; _livedump_hosts
    """
    assert run(place, "zsh", "-f", "-c", program) == ["vm-seven"]
