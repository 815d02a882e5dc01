# SPDX-License-Identifier: GPL-2.0-or-later
"""`dump --exclude`: the real makedumpfile on a machine that writes, and one that goes wrong in each
way. tests/qemu/test_excluded_linux.py has a Debian guest."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs.cli import filtered_dump
from livedumpfs.cli.main import main
from livedumpfs.client import Client
from livedumpfs.dumpfile import open_filtered
from livedumpfs.formats import filtered, kdump
from livedumpfs.units import PAGE_SIZE
from tests.fixtures import forks
from tests.fixtures.makedumpfiles import INSTALLED, PATH, odd_makedumpfile
from tests.fixtures.program_files import program_command

DEADLINE_S = 300.0
RAM = 8 << 20
ALL_THERE = b"\xff" * 16
Host = Any  # hosts.RunningHost

pytestmark = pytest.mark.skipif(INSTALLED is None, reason="makedumpfile is not installed")


class Commands:
    """livedump on one host, in this process: a new one costs half a second of processor time. Every
    machine is taken for Linux, for makedumpfile needs no VMCOREINFO to find pages of zeros."""

    def __init__(
        self,
        host: Host,
        folder: Path,
        patch: pytest.MonkeyPatch,
        captured: pytest.CaptureFixture[bytes],
    ) -> None:
        self.host, self.folder = host, folder
        self._patch, self._captured = patch, captured
        patch.setenv("LIVEDUMP_DEVICE", host.device)
        patch.setenv("PATH", PATH)
        patch.setattr(filtered_dump, "has_vmcoreinfo", lambda path: True)

    def behave(self, does: str) -> None:
        """What makedumpfile does from now on: see odd_makedumpfile()."""
        for name, value in odd_makedumpfile(self.folder, does).items():
            self._patch.setenv(name, value)

    def begin(self, *words: object) -> subprocess.Popen[bytes]:
        """In a process of its own, for signals."""
        return forks.start(
            program_command(__file__, "any_machine_filtered.py", *map(str, words)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: object, code: int = 0) -> tuple[bytes, str]:
        self._captured.readouterr()
        found = main([*map(str, words)])
        out, err = self._captured.readouterr()
        assert found == code, (out[-2000:], err.decode())
        return out, err.decode()

    def exclude(self, target: object, *words: object, code: int = 0) -> tuple[bytes, str]:
        return self.run("dump", "--exclude", "zero", target, *words, code=code)

    def is_free(self) -> None:
        """The machine runs on, and there is no dump of it."""
        with Client(self.host.device) as client:
            assert client.status().state.name == "UNINIT"
        self.host.runs_on()


@pytest.fixture
def commands(
    module_host: Host,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Commands:
    return Commands(module_host, tmp_path, monkeypatch, capfdbinary)


def pages_in(path: Path) -> tuple[bytes, int]:
    """The memory in a kdump without compression of a machine without gaps, and how many pages of it
    are stored."""
    data = path.read_bytes()
    found = filtered.parse_written(data[: kdump.HEAD_SIZE])
    bits = np.frombuffer(data, np.uint8, found.bitmap_size, found.bitmap_offset)
    numbers = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
    assert numbers.tolist() == list(range(RAM // PAGE_SIZE))
    table = np.frombuffer(data, kdump.DESCRIPTOR, len(numbers), found.descriptors_offset)
    assert set(table["size"]) == {PAGE_SIZE} and set(table["flags"]) == {0}
    memory = b"".join(data[one : one + PAGE_SIZE] for one in table["offset"].tolist())
    return memory, len(set(table["offset"]))


def test_what_is_left_is_the_memory_of_the_instant(commands: Commands, tmp_path: Path) -> None:
    """Pages of zeros are one; a second dump takes the place of the first."""
    target = tmp_path / "dump"
    for _ in range(2):
        out, err = commands.exclude(target, "--compress", "none")
        assert b"verdict   consistent" in out and "released; the machine runs" in err
        with mmap.mmap(commands.host.reference, RAM, prot=mmap.PROT_READ) as memory:
            instant = bytes(memory)
        pages = [instant[at : at + PAGE_SIZE] for at in range(0, RAM, PAGE_SIZE)]
        empty = sum(not any(page) for page in pages)
        assert pages_in(target) == (instant, len(pages) - empty + 1)
    told = json.loads(commands.run("info", target, "--json")[0])
    assert (told["verdict"], told["level"], told["arena_size"]) == ("consistent", 1, RAM)
    assert 0 < told["excluded"]["zero"] == told["excluded"]["all"] == empty
    assert b"the file is as makedumpfile wrote it" in commands.run("verify", target)[0]
    assert not list(tmp_path.glob("*.incomplete*"))
    commands.is_free()
    for words in (["convert", target, tmp_path / "new"], ["compare", target, target]):
        assert "makedumpfile has left pages out of it" in commands.run(*words, code=3)[1]
    with open_filtered(str(target)) as dump:
        record = dump.superblock.superblock_offset
    for place, sentence in (
        (record // 2, "it was changed since"),
        (record + 4096 + 60, "its meta data is damaged"),
    ):
        flip(target, place)
        assert sentence in commands.run("verify", target, code=3)[1]
        flip(target, place)


def flip(path: Path, at: int) -> None:
    """A bit of a byte."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


FAILURES = {
    "echo cannot think >&2; exit 1": "makedumpfile failed: cannot think",
    'exec "$real" --nonsense "$@" 2>&1': "makedumpfile failed: Commandline parameter is invalid",
    "kill -KILL $$": "makedumpfile was ended by SIGKILL",
    "exit 0": "what it wrote is no dump: it has no kdump header",
    "head -c 50000 /dev/urandom > $out": "what it wrote is no dump: it has no kdump header",
    '"$real" "$@" -d 0 >&2': "what it wrote is no dump: its kdump header has dump level 0, not 1",
    '"$real" "$@"; truncate -s -40000 $out': "what it wrote is no dump: it is cut off",
    '"$real" "$@"; truncate -s 20000 $out': "what it wrote is no dump: it ends within its",
}


def test_a_makedumpfile_that_fails_leaves_the_last_dump(commands: Commands, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    commands.exclude(target)
    before = target.read_bytes()
    for script, sentence in FAILURES.items():
        commands.behave(script)
        err = commands.exclude(target, code=1)[1]
        assert sentence in err.splitlines()[-1], (script, err)
        assert target.read_bytes() == before and not list(tmp_path.glob("*.incomplete*"))
    commands.is_free()


def test_a_full_disk(commands: Commands, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=True)
    try:
        err = commands.exclude(small / "dump", code=1)[1]
        assert f"Can't write the dump file({small}/dump). No space left on device" in err, err
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
    commands.is_free()


def hanging(commands: Commands, target: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A command whose makedumpfile has written half of its file, and waits; and the pid of that."""
    told = commands.folder / "pid"
    commands.behave(
        f'"$real" "$@"; truncate -s -40000 $out; echo $$ > {told}.part; mv {told}.part {told}\n'
        "exec sleep 1000"
    )
    process = commands.begin("dump", "--exclude", "zero", target)
    end = time.monotonic() + DEADLINE_S
    while not told.exists():
        assert time.monotonic() < end and process.poll() is None, process.communicate(timeout=9)
        time.sleep(0.05)
    return process, int(told.read_text())


def has_gone(pid: int) -> None:
    end = time.monotonic() + DEADLINE_S
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < end, f"makedumpfile (pid {pid}) runs on"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_one_leaves_nothing(
    commands: Commands, tmp_path: Path, number: signal.Signals
) -> None:
    target = tmp_path / "dump"
    process, pid = hanging(commands, target)
    process.send_signal(number)
    err = process.communicate(timeout=DEADLINE_S)[1].decode()
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1].endswith(f"; there is no dump on {target}")
    assert not list(tmp_path.glob("dump*"))
    has_gone(pid)
    commands.is_free()


def test_what_a_killed_command_leaves_is_replaced(commands: Commands, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    process, pid = hanging(commands, target)
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    has_gone(pid)
    assert not target.exists()
    commands.host.runs_on()
    commands.behave('exec "$real" "$@"')
    commands.exclude(target)
    assert [one.name for one in tmp_path.glob("dump*")] == ["dump"]
    commands.run("verify", target)


def test_a_snapshot_that_is_released_meanwhile(commands: Commands, tmp_path: Path) -> None:
    """makedumpfile may have read all of it from the page cache, or not."""
    process, pid = hanging(commands, tmp_path / "dump")
    with Client(commands.host.device) as client:
        client.release()
    err = process.communicate(timeout=DEADLINE_S)[1].decode()
    assert process.returncode == 3, err
    assert err.endswith("the snapshot was released before makedumpfile had read it\n"), err
    assert not list(tmp_path.glob("dump*"))
    has_gone(pid)
    commands.is_free()


def test_lost_pages(commands: Commands, tmp_path: Path) -> None:
    """makedumpfile cannot read them: there is no dump then. Where it did not read them, the file
    says that they are lost, and does not take the place of a good one."""
    commands.behave(f'"$real" "$@" && cp $out {tmp_path}/other')
    commands.exclude(tmp_path / "dump")
    torn = f'grep -q \'"so_far": "torn"\' {commands.host.mountpoint}/stats.json'
    wait = f"until {torn}; do sleep 0.1; done"
    few = ("--pool", "64K", "--spill-limit", "64K", "--at-limit", "lose")
    commands.behave(f'{wait}; exec "$real" "$@"')
    err = commands.exclude(tmp_path / "none", *few, code=3)[1]
    assert "the snapshot in memory is torn" in err.splitlines()[-1], err
    assert not list(tmp_path.glob("none*"))
    commands.behave(f"{wait}; exec cp {tmp_path}/other $out")
    kept = commands.exclude(tmp_path / "dump", *few, code=1)[1]
    assert "holds a consistent one (the new dump is" in kept, kept
    (tmp_path / "dump").unlink()
    commands.exclude(tmp_path / "dump", *few, code=3)
    assert "the snapshot was torn" in commands.run("verify", tmp_path / "dump", code=3)[1]
    assert "the dump is torn" in commands.run("info", tmp_path / "dump", code=3)[1]
    commands.is_free()


def test_standard_output_ends_with_the_verdict(commands: Commands, tmp_path: Path) -> None:
    """The last record, by which makedumpfile -R knows that all is there, comes after it."""
    stream, err = commands.exclude("-")
    assert stream.startswith(kdump.FLAT_MAGIC) and stream.endswith(ALL_THERE)
    assert "verdict   consistent" in err
    done = subprocess.run(
        [str(INSTALLED), "-R", tmp_path / "dump"], input=stream, check=True, timeout=DEADLINE_S,
        capture_output=True,
    )  # fmt: skip
    assert b"Completed" in done.stdout
    assert filtered.parse_written((tmp_path / "dump").read_bytes()[: kdump.HEAD_SIZE]).level == 1
    commands.behave('"$real" "$@"; exit 1')
    stream, err = commands.exclude("-", code=1)
    assert stream.startswith(kdump.FLAT_MAGIC) and not stream.endswith(ALL_THERE)
    commands.is_free()


def test_a_reader_that_leaves(commands: Commands) -> None:
    process = commands.begin("dump", "--exclude", "zero", "-", "--compress", "none")
    assert process.stdout and process.stderr
    process.stdout.read(100)
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(DEADLINE_S) == 3, err
    assert err.splitlines()[-1] == "livedump: error: cannot write to standard output: Broken pipe"
    process.stderr.close()
    commands.is_free()


def test_older_ones_of_a_series_go(commands: Commands, tmp_path: Path) -> None:
    for _ in range(3):
        commands.exclude(tmp_path / "vm-{date}.kdump", "--keep", "2")
    assert len(list(tmp_path.glob("vm-*.kdump"))) == 2


def test_a_machine_without_linux_is_refused(
    module_host: Host, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["dump", "--device", module_host.device, "--exclude", "all", str(tmp_path / "dump")]
    assert main(words) == 1
    assert "there is no VMCOREINFO in its memory" in capfd.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("dump*"))
    module_host.runs_on()
