# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package of `make deb`, in a clean Debian 12 that is made for it (`make test-deb`):
what lintian says, a dump after `apt install`, the units under a real systemd, and what a purge
leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.mount.host_log import MESSAGE_IDS
from tests.fixtures.program_files import program_file

TOP = Path(__file__).resolve().parents[2]
DEB = os.environ.get("LIVEDUMP_DEB")
CYCLE = TOP / "tests/fixtures/programs/cycle.sh"
LONG_S = 1800
KEEP = 2
SCHEDULE = "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/5\nRandomizedDelaySec=0\nAccuracySec=1\n"
MACHINE = f'HOST_OPTIONS="--ram 16M --idle --quiesce-deadline 60"\nKEEP={KEEP}\n'
pytestmark = [
    pytest.mark.skipif(not DEB or os.geteuid() != 0, reason="make test-deb as root"),
    pytest.mark.together,
]


def run(*command: str | Path, cwd: Path = TOP) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=LONG_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def package() -> Path:
    (found,) = (TOP / str(DEB)).glob("livedumpfs_*.deb")
    return found


def container(root: Path, *options: str) -> list[str | Path]:
    """A command in that Debian, with a mount namespace of its own. No systemd is asked for it.
    Without the filter, munlock is refused, which INIT takes for a lack of memory."""
    return [
        "systemd-nspawn", "-q", "--register=no", "--keep-unit", "--bind=/dev/fuse",
        "--resolv-conf=replace-host", "--system-call-filter=@memlock", *options, "-D", root,
    ]  # fmt: skip


def mirror() -> str:
    """Where this system gets Debian from."""
    lines = run("apt-get", "indextargets", "--format", "$(LABEL) $(CODENAME) $(REPO_URI)")
    found = re.search(r"^Debian bookworm (\S+)", lines, re.M)
    assert found, lines
    return found.group(1)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With the package installed by apt."""
    root = tmp_path_factory.mktemp("debian") / "root"
    bare = os.environ.get("LIVEDUMP_DEBIAN_TAR")  # one that is there already
    try:
        if bare:
            run("tar", "-C", root.parent, "-xf", bare)
        else:
            run(
                "mmdebstrap", "-q", "--variant=minbase", "--include=systemd,systemd-sysv,dbus",
                "bookworm", root, mirror(),
            )  # fmt: skip
        shutil.copy(package(), root / "root/livedumpfs_1_amd64.deb")
        apt = [*container(root, "--pipe"), "apt-get", "-q", "-y"]
        run(*apt, "update")
        run(*apt, "--no-install-recommends", "install", "/root/livedumpfs_1_amd64.deb")
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_lintian_has_nothing_to_say() -> None:
    said = run("lintian", "--allow-root", "--fail-on", "error,warning", package())
    assert said == ""


def test_a_dump_in_a_clean_debian(debian: Path) -> None:
    shutil.copy(CYCLE, debian / "root/cycle.sh")
    work = "mkdir /root/work && bash /root/cycle.sh /root/work /usr/bin/livedump"
    out = run(*container(debian, "--pipe"), "bash", "-c", work)
    assert out.endswith("all done as 0\n") and out.count("consistent") == 3


def test_the_manual_page_is_there(debian: Path) -> None:
    assert list(debian.glob("usr/share/man/man1/livedump*.1.gz"))


def configure(root: Path) -> None:
    """The machine vm1, which is dumped every five seconds."""
    (root / "etc/livedump/vm1.conf").write_text(MACHINE)
    timer = "livedump-dump@vm1.timer"
    (root / f"etc/systemd/system/{timer}.d").mkdir(parents=True)
    (root / f"etc/systemd/system/{timer}.d/often.conf").write_text(SCHEDULE)
    run("systemctl", "--root", root, "enable", "livedump-host@vm1.service", timer)
    (root / "var/log/journal").mkdir(exist_ok=True)  # which keeps the journal


def test_the_timer_dumps_and_keeps_some(debian: Path) -> None:
    """Under the systemd of that Debian, which is started for it."""
    configure(debian)
    store = debian / "var/lib/livedump/vm1"
    log = debian.parent / "log"
    with log.open("w") as out:
        booted = subprocess.Popen(
            [*container(debian, "--boot"), "systemd.unified_cgroup_hierarchy=yes"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        seen: set[str] = set()
        until = time.monotonic() + 600
        while len(seen) < KEEP + 2:
            assert time.monotonic() < until and booted.poll() is None, log.read_text()[-4000:]
            seen |= {one.name for one in store.glob("*.caibx")}
            time.sleep(0.2)
        left = {one.name for one in store.glob("*.caibx")}
        assert len(left) <= KEEP + 1, "the one that is just taken, and those that stay"
    finally:
        booted.send_signal(signal.SIGTERM)  # an orderly end
        try:
            booted.wait(120)
        except subprocess.TimeoutExpired:
            booted.kill()
            booted.wait()
    inside = program_file(__file__, "stored_dumps.sh")
    shutil.copy(inside, debian / "root/stored_dumps.sh")
    out = run(*container(debian, "--pipe"), "bash", "/root/stored_dumps.sh")
    assert out.splitlines()[-1] == f"{len(list(store.glob('*.caibx')))} verified"


def test_the_journal_has_each_dump(debian: Path) -> None:
    """What the units above have left there: records with fields of ours, found by them."""
    words = ("journalctl", "-D", "/var/log/journal", "-o", "json", "--no-pager")

    def records(*matches: str) -> list[dict[str, str]]:
        plain = container(debian, "--pipe", "--setenv=SYSTEMD_COLORS=0")
        out = run(*plain, *words, *matches)
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    finished = records(f"MESSAGE_ID={MESSAGE_IDS['finish']}")
    assert len(finished) > KEEP
    assert {one["LIVEDUMP_VERDICT"] for one in finished} == {"consistent"}
    assert {one["_SYSTEMD_UNIT"] for one in finished} == {"livedump-host@vm1.service"}
    assert {one["LIVEDUMP_MOUNTPOINT"] for one in finished} == {"/run/livedump/vm1"}
    first = finished[0]
    life = records(f"LIVEDUMP_DUMP_ID={first['LIVEDUMP_DUMP_ID']}")
    events = [one["LIVEDUMP_EVENT"] for one in life]
    assert events == ["init", "start", "finish", "release"]
    assert [one["PRIORITY"] for one in life] == ["6", "6", "5", "6"]
    assert all(
        one["MESSAGE"].isprintable() and one["SYSLOG_IDENTIFIER"] == "livedump" for one in life
    )
    assert int(life[1]["LIVEDUMP_PAUSE_NS"]) > 0
    assert [one["LIVEDUMP_MACHINE"] for one in records("LIVEDUMP_EVENT=host-start")] == ["ledger"]
    assert [one["PRIORITY"] for one in records("LIVEDUMP_EVENT=host-end")] == ["6"]


def test_dashboard_and_alerts_are_there(debian: Path) -> None:
    """As they are: Grafana and Prometheus read no .gz."""
    folder = debian / "usr/share/doc/livedumpfs/dashboards"
    for path in (TOP / "dashboards").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_a_purge_leaves_nothing(debian: Path) -> None:
    run(*container(debian, "--pipe"), "apt-get", "-q", "-y", "purge", "livedumpfs")
    assert not (debian / "usr/lib/livedumpfs").exists()
    assert not (debian / "usr/bin/livedump").exists()
