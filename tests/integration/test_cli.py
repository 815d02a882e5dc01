# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands, as they are typed: a host in one process, the command line in another."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.machines import boot

TOP = Path(__file__).resolve().parents[2]
LIVEDUMP = str(TOP / "scripts" / "livedump")
DEADLINE = 300.0

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="the mount needs /dev/fuse"
)


class Shell:
    """A place to type livedump commands, with a runtime directory and hosts of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "LIVEDUMP_PYTHON": sys.executable,
            "XDG_RUNTIME_DIR": str(folder),
            "LIVEDUMPFS_STATE": str(folder / "state"),
        }
        self.env.pop("LIVEDUMP_DEVICE", None)
        self.processes: list[subprocess.Popen[str]] = []

    def begin(self, *words: str, **more: object) -> subprocess.Popen[str]:
        """Start a command and go on."""
        process = subprocess.Popen(
            [LIVEDUMP, *words],
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},  # type: ignore[call-overload]
        )
        self.processes.append(process)
        return process

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        """Run a command to its end, which must be `code`: (standard output, standard error)."""
        process = self.begin(*words)
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == code, f"livedump {' '.join(words)}:\n{out}{err}"
        assert "Traceback" not in err
        return out, err

    def fails(self, *words: str, code: int = 1) -> str:
        """Run a command that must fail with one sentence; the sentence."""
        out, err = self.run(*words, code=code)
        errors = [line for line in err.splitlines() if line.startswith("livedump: error: ")]
        assert len(errors) == 1, f"{out}{err}"
        return errors[0]

    def host(self, *words: str) -> tuple[subprocess.Popen[str], str]:
        """A running host and its device."""
        log = self.folder / f"host-{len(self.processes)}.log"
        with open(log, "w") as file:
            process = self.begin("host", *words, stdout=file, stderr=subprocess.STDOUT)
        wait_for(
            lambda: "\ndevice " in log.read_text() or process.poll() is not None, log.read_text
        )
        assert process.poll() is None, log.read_text()
        return process, log.read_text().split("\ndevice ")[1].split("\n")[0]

    def status(self) -> dict[str, object]:
        told: dict[str, object] = json.loads(self.run("status", "--json")[0])
        return told

    def close(self) -> None:
        """End what still runs: commands first, then their hosts."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=DEADLINE)
        stuck = [process for process in self.processes if process.poll() is None]
        for process in stuck:
            process.kill()
            process.wait(timeout=DEADLINE)
        assert not stuck, f"did not end on SIGTERM: {[p.args for p in stuck]}"
        assert not mounts_below(self.folder)


def wait_for(condition: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"still not so after {DEADLINE:g} s: {told()}"
        time.sleep(0.02)


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [
        where for where in (line.split()[4] for line in lines) if where.startswith(f"{folder}/")
    ]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.close()


@pytest.fixture
def device(shell: Shell) -> str:
    """The device of a machine that writes hard: all that it can, on a processor for each vCPU."""
    return shell.host("--ram", "16M", "--vcpus", "2", "--dirty", "60%")[1]


@pytest.fixture
def quiet(shell: Shell) -> str:
    """The device of one that writes little: its dump takes as long as the sweep, and the processors
    are the commands'."""
    return shell.host("--ram", "16M", "--dirty", "60%", "--idle")[1]


def books(device: str) -> bytes:
    """Journal and counters of vCPU 0, live: they change with every transfer of the guest."""
    with open(Path(device).parent / "mem", "rb", buffering=0) as memory:
        parameters = os.pread(memory.fileno(), boot.SIZE, boot.address(0))
        return os.pread(memory.fileno(), 256, boot.BootParams.unpack(parameters).ledger)


def runs_on(device: str) -> None:
    before = books(device)
    wait_for(lambda: books(device) != before, before.hex)


# ------------------------------------------------------------------------ whole dumps


@pytest.mark.parametrize("layout", ["elf", "raw"])
def test_dump_to_a_file(layout: str, shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    out, err = shell.run("dump", target, "--format", layout)
    assert out.startswith("machine stopped for ")
    assert "verdict   consistent" in out
    assert "dump " in err.splitlines()[0]
    assert err.splitlines()[-1].startswith("livedump: released")
    assert "consistent" in shell.run("info", target)[0]
    proof = shell.run("verify", target)[0]
    assert "ledger" in proof
    assert shell.status()["state"] == "UNINIT"
    runs_on(quiet)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_snapshot_without_a_target(at_once: bool, shell: Shell, quiet: str) -> None:
    if at_once:
        shell.run("start", "--no-target", "--spill-limit", "128M")
    else:
        shell.run("init", "--no-target", "--spill-limit", "128M")
        shell.run("start")
    told = shell.status()
    assert (told["state"], told["target"], told["policy"]) == ("START", None, "spill")
    raw = Path(quiet).parent / "snapshot" / "mem.raw"
    first = raw.read_bytes()
    assert len(first) == 16 << 20
    runs_on(quiet)
    assert raw.read_bytes() == first
    told = shell.status()
    assert (told["verdict"], told["so_far"]) == (None, "consistent")
    assert "there is a dump already" in shell.fails("start", "--no-target")
    assert shell.status()["state"] == "START"
    shell.run("release")
    assert not raw.exists()
    runs_on(quiet)


def test_a_snapshot_beyond_its_limit_is_torn_and_named(shell: Shell, quiet: str) -> None:
    """The machine runs on; the verdict, status and finish say which pages are lost."""
    shell.run("start", "--no-target", "--spill-limit", "64K")
    wait_for(lambda: shell.status()["so_far"] == "torn", shell.status)
    runs_on(quiet)
    told = shell.status()
    assert (told["policy"], told["spill_limit"]) == ("spill", 64 << 10)
    assert told["lost_pages"]
    out, _ = shell.run("status")
    assert re.search(r"^policy +spill, up to 64 KiB$", out, re.M)
    assert re.search(r"^lost +pages 0x", out, re.M)
    shell.run("sweep")
    out, err = shell.run("finish", code=3)
    assert re.search(r"^lost +pages 0x", out, re.M)
    assert "the snapshot in memory is torn" in err
    assert "the snapshot in memory is torn" in shell.run("release", code=3)[1]
    runs_on(quiet)


def test_a_forgotten_snapshot_is_released(shell: Shell, quiet: str, tmp_path: Path) -> None:
    shell.run("start", "--no-target", "--max-age", "1s")
    wait_for(lambda: shell.status()["state"] == "UNINIT", shell.status)
    assert shell.status()["expired"] == "released: older than its maximum age of 1 s"
    assert re.search(
        r"^released +by the host in state START: older than its maximum age",
        shell.run("status")[0],
        re.M,
    )
    assert "older than its maximum age of 1 s" in shell.fails("sweep")
    runs_on(quiet)
    # As one that goes on: each step in time, and nothing of the age is left behind.
    target = str(tmp_path / "dump")
    assert "consistent" in shell.run("dump", target, "--max-age", "1h")[0]
    assert shell.status()["expired"] is None
    shell.run("verify", target)


def test_a_raw_dump_with_its_table_at_the_tail(
    shell: Shell, quiet: str, tmp_path: Path, loop_device: Callable[..., str]
) -> None:
    target = loop_device(20 << 20)
    shell.run("dump", target, "--format", "raw", "--table", "tail")
    told = json.loads(shell.run("verify", target, "--json")[0])
    assert (told["format"], told["sidecar"], told["verdict"]) == ("raw", None, "consistent")
    assert told["verified"]["ok"] and told["verified"]["checked"] > 0
    small = loop_device(16 << 20)
    assert "the device has 16 MiB" in shell.fails(
        "dump", small, "--format", "raw", "--table", "tail"
    )
    shell.run("dump", small, "--format", "raw")
    shell.run("verify", small)


def test_a_kdump_by_its_options(shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    words = ("--compress", "zlib", "--level", "1", "--threads", "2")
    shell.run("dump", target, "--format", "kdump", *words)
    out, _ = shell.run("verify", target)
    assert re.search(r"^format +kdump", out, re.M) and re.search(r"^backend +SIGSEGV", out, re.M)
    assert re.search(r"^by sweep +\d+ granules? in \d+ range", out, re.M)
    assert "zlib has no level 10" in shell.fails(
        "dump", target, "--format", "kdump", "--compress", "zlib", "--level", "10", code=2
    )
    assert "compression zlib does not go with format elf" in shell.fails(
        "dump", target, "--compress", "zlib"
    )


def test_no_target_and_a_target_exclude_each_other(shell: Shell, quiet: str) -> None:
    assert "not allowed with" in shell.fails("init", "--no-target", "out", code=2)
    assert "required" in shell.fails("init", code=2)
    assert "--no-target" in shell.fails("start", "--spill-limit", "1M", code=2)
    assert shell.status()["state"] == "UNDEFINED"


def test_dump_to_a_block_device(shell: Shell, quiet: str, loop_device: Callable[..., str]) -> None:
    target = loop_device(24 << 20)
    shell.run("dump", target)
    assert "it holds a consistent dump (use --force" in shell.fails("dump", target)
    shell.run("dump", target, "--force")
    shell.run("verify", target)
    runs_on(quiet)


def test_dump_options_reach_the_dump(shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    shell.run(
        "dump", target, "--policy", "spill", "--arming", "mprotect", "--backend", "uffd",
        "--granule", "64K", "--pool", "1M", "--spill-limit", "8M", "--deadline", "5",
    )  # fmt: skip
    told = json.loads(shell.run("info", target, "--json")[0])
    assert (told["policy"], told["arming"], told["granule_size"]) == ("spill", "mprotect", 65536)
    assert told["backend"] == "userfaultfd"
    status = shell.status()
    shown = tuple(status[name] for name in ("policy", "arming", "backend", "verdict"))
    assert shown == ("spill", "mprotect", "uffd", "consistent")


def test_a_torn_dump_is_no_success(shell: Shell, device: str, tmp_path: Path) -> None:
    """Four slots for a machine that writes hard, and a slow sweep: pages are lost, and named."""
    target = str(tmp_path / "dump")
    out, err = shell.run(
        "dump", target, "--policy", "fail", "--granule", "4K", "--pool", "16K",
        "--sweep-rate", "32M", code=3,
    )  # fmt: skip
    assert "torn" in err
    assert re.search(r"^lost +pages 0x", out, re.M)
    told, _ = shell.run("info", target, code=3)
    assert "verdict     torn" in told
    assert re.search(r"^lost +\d+ granules?: pages 0x", told, re.M)
    shell.run("verify", target, code=3)
    runs_on(device)


def test_a_bar_on_a_terminal(shell: Shell, quiet: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        process = shell.begin("dump", str(tmp_path / "dump"), stderr=theirs)
        os.close(theirs)
        shown = b""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    piece = os.read(ours, 65536)
                except OSError:  # EIO: the other end is closed
                    break
                shown += piece
        assert process.wait(timeout=DEADLINE) == 0
    finally:
        os.close(ours)
    assert "━".encode() in shown
    assert b"16.0/16.0 MiB" in shown


def shape(line: str) -> str:
    """What it says, without numbers, units of time and names of this run."""
    line = re.sub(r"/\S+", "PATH", line)
    line = re.sub(r"\d[\d.:+-]*( [num]?s\b| [KMG]?i?B(/s)?\b)?", "#", line)
    line = re.sub(r", # waits? for a slot", "", " ".join(line.split()))
    return line.replace("# steal,", "# steals,")


def test_the_readme_session(shell: Shell, loop_device: Callable[..., str]) -> None:
    """Its livedump commands, on a smaller machine, print the lines that it shows."""
    blocks = re.findall(r"^```console\n(.*?)^```", (TOP / "README.md").read_text(), re.M | re.S)
    device = loop_device(32 << 20)
    for part in "".join(blocks[:2]).split("$ livedump ")[1:]:
        typed, *lines = re.split(r"^\$ ", part, flags=re.M)[0].splitlines()
        words = typed.replace("512M", "16M").replace("/dev/loop0", device).split(" | ")[0].split()
        if words[-1] == "&":
            shell.host(*words[1:-1])
            continue
        out, err = shell.run(*words)
        printed = {shape(line) for line in (out + err).splitlines()}
        for line in lines:
            assert shape(line) in printed, f"{line!r} is not printed by {typed}:\n{out}{err}"


# ------------------------------------------------------------------------ step by step


def test_steps(shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    assert shell.status()["state"] == "UNDEFINED"
    shell.run("init", target)
    assert shell.status()["state"] == "INIT"
    assert shell.run("start")[0].startswith("machine stopped for ")
    assert shell.status()["state"] == "START"
    shell.run("sweep")
    out, _ = shell.run("finish")
    assert "verdict   consistent" in out
    told = shell.run("status")[0]
    assert "state     FINISH" in told
    assert target in told
    shell.run("release")
    assert shell.status()["state"] == "UNINIT"
    shell.run("verify", target)
    shell.run("uninit")


def test_wrong_order(shell: Shell, quiet: str, tmp_path: Path) -> None:
    for step in ("start", "sweep", "finish"):
        shell.fails(step)
    shell.run("init", str(tmp_path / "dump"))
    assert "already" in shell.fails("init", str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    shell.fails("sweep")
    shell.run("release")
    runs_on(quiet)


def test_finish_can_give_up_and_the_dump_goes_on(shell: Shell, quiet: str, tmp_path: Path) -> None:
    shell.run("init", str(tmp_path / "dump"), "--sweep-rate", "512K")
    shell.run("start")
    shell.run("sweep")
    assert "not finished" in shell.fails("finish", "--timeout", "0.3")
    assert shell.status()["state"] == "SWEEP"
    shell.run("release")
    shell.run("info", str(tmp_path / "dump.incomplete"), code=3)


# ------------------------------------------------------------------------ interrupted


def begin_slow_dump(shell: Shell, target: str) -> subprocess.Popen[str]:
    process = shell.begin("dump", target, "--sweep-rate", "512K")
    wait_for(lambda: shell.status()["state"] == "SWEEP", shell.status)
    return process


def test_ctrl_c_releases(shell: Shell, quiet: str, tmp_path: Path) -> None:
    target = str(tmp_path / "dump")
    process = begin_slow_dump(shell, target)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert f"livedump: error: interrupted; the dump on {target}.incomplete is incomplete" in err
    assert shell.status()["state"] == "UNINIT"
    assert "incomplete" in shell.run("info", f"{target}.incomplete", code=3)[0]
    runs_on(quiet)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_dump_releases(
    number: signal.Signals, shell: Shell, quiet: str, tmp_path: Path
) -> None:
    target = str(tmp_path / "dump")
    process = begin_slow_dump(shell, target)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE)
    wait_for(lambda: shell.status()["state"] == "UNINIT", shell.status)
    assert "incomplete" in shell.run("info", f"{target}.incomplete", code=3)[0]
    shell.run("dump", str(tmp_path / "next"))
    runs_on(quiet)


def test_a_dump_released_by_somebody_else(shell: Shell, quiet: str, tmp_path: Path) -> None:
    process = begin_slow_dump(shell, str(tmp_path / "dump"))
    shell.run("release")
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 3
    assert "released meanwhile" in err


# ------------------------------------------------------------------------ bad targets


def test_bad_targets(shell: Shell, quiet: str, tmp_path: Path) -> None:
    other = tmp_path / "letter"
    other.write_text("Dear reader")
    for target in (str(tmp_path), "/no/such/folder/dump", str(other), "/dev/null", "x" * 5000):
        shell.fails("dump", target)
    shell.fails("dump", "", code=2)
    assert other.read_text() == "Dear reader"
    assert shell.status()["state"] == "UNDEFINED"
    shell.run("dump", str(other), "--force")
    shell.run("verify", str(other))
    runs_on(quiet)


def test_a_device_that_is_too_small(
    shell: Shell, quiet: str, loop_device: Callable[..., str]
) -> None:
    assert "the device has 8 MiB" in shell.fails("dump", loop_device(8 << 20))
    assert shell.status()["state"] == "UNDEFINED"
    runs_on(quiet)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_disk_that_fills_up(shell: Shell, quiet: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", small], check=True)
    try:
        foreseen = shell.fails("dump", str(small / "dump"))
        assert "the dump needs" in foreseen and "--force goes on" in foreseen
        assert list(small.iterdir()) == []
        sentence = shell.fails("dump", str(small / "dump"), "--force", code=3)
        assert re.search(
            r"cannot write page 0x[0-9a-f]+ to \S+/small/dump.incomplete: No space left", sentence
        )
        shell.run("info", str(small / "dump.incomplete"), code=3)
        assert re.search(r"^reason +cannot write page", shell.run("status")[0], re.M)
        runs_on(quiet)
        shell.run("dump", str(tmp_path / "next"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_relative_path_is_the_callers(shell: Shell, quiet: str, tmp_path: Path) -> None:
    shell.run("dump", "here")
    assert (tmp_path / "here").stat().st_size > 16 << 20


# ------------------------------------------------------------------------ hosts


def test_no_host(shell: Shell) -> None:
    assert "no host is running" in shell.fails("status")


def test_which_host(shell: Shell, tmp_path: Path) -> None:
    _, first = shell.host("--ram", "8M", "--idle")
    assert shell.status()["device"] == first
    _, second = shell.host("--ram", "8M", "--idle")
    sentence = shell.fails("status")
    assert first in sentence
    assert second in sentence
    assert json.loads(shell.run("status", "--json", "--device", second)[0])["device"] == second
    shell.env["LIVEDUMP_DEVICE"] = first
    assert shell.status()["device"] == first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_host_ends_in_order(number: signal.Signals, shell: Shell, tmp_path: Path) -> None:
    process, device = shell.host("--ram", "8M", "--idle")
    assert mounts_below(tmp_path) == [str(Path(device).parent)]
    process.send_signal(number)
    assert process.wait(timeout=DEADLINE) == 0
    assert not mounts_below(tmp_path)
    assert not Path(device).parent.exists()
    assert not list((tmp_path / "livedumpfs").glob("*.json"))


def test_a_host_that_ends_mid_dump(shell: Shell, tmp_path: Path) -> None:
    process, _ = shell.host("--ram", "16M", "--idle")
    target = str(tmp_path / "dump")
    client = begin_slow_dump(shell, target)
    process.terminate()
    assert process.wait(timeout=DEADLINE) == 0
    client.communicate(timeout=DEADLINE)
    assert client.returncode == 3
    assert "incomplete" in shell.run("info", f"{target}.incomplete", code=3)[0]


def test_a_killed_host_is_cleaned_up_by_the_next(shell: Shell, tmp_path: Path) -> None:
    process, device = shell.host("--ram", "16M", "--idle")
    target = str(tmp_path / "dump")
    client = begin_slow_dump(shell, target)
    process.kill()
    process.wait(timeout=DEADLINE)
    client.communicate(timeout=DEADLINE)
    assert client.returncode == 3
    assert "incomplete" in shell.run("info", f"{target}.incomplete", code=3)[0]
    _, next_device = shell.host("--ram", "8M", "--idle")
    assert mounts_below(tmp_path) == [str(Path(next_device).parent)]
    assert not Path(device).parent.exists()


def test_hosts_that_cannot_be(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    shell.fails("host", "--guest", "text", "--ram", "8M")
    shell.fails("host", "--guest", "nothing", "--ram", "8M")
    shell.fails("host", "--mount", "nowhere", "--ram", "8M")
    assert "not empty" in shell.fails("host", "--mount", "full", "--ram", "8M")
    shell.fails("host", "--ram", "4K", code=2)
    assert not mounts_below(tmp_path)


def test_a_chosen_mount_stays_a_directory(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    process, device = shell.host("--ram", "8M", "--idle", "--mount", "mnt")
    assert device == str(tmp_path / "mnt" / "livedump")
    process.terminate()
    assert process.wait(timeout=DEADLINE) == 0
    assert list((tmp_path / "mnt").iterdir()) == []
