# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell scripts, on machines made of a few fake commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
AS_NOBODY = (
    ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if os.geteuid() == 0
    else []
)
"""Root may enter every folder."""


def fake(folder: Path, name: str, body: str) -> None:
    """A command `name` that comes first on PATH."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def run(
    *words: str | Path, path: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **env}
    if path:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(
        [str(w) for w in words], env=environment, capture_output=True, text=True, timeout=300
    )


def test_setup_says_what_to_install_without_root(tmp_path: Path) -> None:
    fake(tmp_path, "id", "echo 1000")
    fake(tmp_path, "dpkg-query", 'for last; do :; done; [ "$last" = spin ] || echo -n installed')
    result = run(TOP / "scripts/setup", "packages", path=tmp_path)
    assert result.returncode == 1
    assert "as root: apt-get install --no-install-recommends spin" in result.stderr


def test_setup_installs_only_what_is_missing_as_root(tmp_path: Path) -> None:
    fake(tmp_path, "id", "echo 0")
    fake(tmp_path, "dpkg-query", 'for last; do :; done; [ "$last" = gdb ] || echo -n installed')
    fake(tmp_path, "apt-get", f'echo "$@" >>{tmp_path}/calls')
    result = run(TOP / "scripts/setup", "packages", path=tmp_path)
    assert result.returncode == 0, result.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [c.split("=120 ")[1] for c in calls] == [
        "update",
        "install -y --no-install-recommends gdb",
    ]


def test_setup_reports_apt_that_fails(tmp_path: Path) -> None:
    fake(tmp_path, "id", "echo 0")
    fake(tmp_path, "dpkg-query", "exit 1")
    fake(tmp_path, "apt-get", 'case "$*" in *install*) exit 100;; esac')
    result = run(TOP / "scripts/setup", "packages", path=tmp_path)
    assert result.returncode == 1
    assert "livedump: error: apt-get could not install python3" in result.stderr


def test_setup_refuses_an_old_python(tmp_path: Path) -> None:
    """Neither the Python on PATH nor the system's is new enough: say so, make nothing."""
    script = (TOP / "scripts/setup").read_text().replace("/usr/bin/python3", "python3")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/setup").write_text(script)
    fake(tmp_path, "python3", "exit 1")
    result = run("sh", tmp_path / "scripts/setup", "venv", tmp_path / "venv", path=tmp_path)
    assert result.returncode == 1
    assert "no Python 3.11 or newer" in result.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("words", [(), ("venv",), ("packages", "x"), ("other",)])
def test_setup_usage(words: tuple[str, ...]) -> None:
    result = run(TOP / "scripts/setup", *words)
    assert result.returncode == 1
    assert "usage: scripts/setup" in result.stderr


def test_livedump_runs_on_the_python_it_is_told(tmp_path: Path) -> None:
    result = run(TOP / "scripts/livedump", "--version", LIVEDUMP_PYTHON=sys.executable)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("livedump ")


def test_livedump_installed_runs_on_the_python_beside_it(tmp_path: Path) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    shutil.copy(TOP / "scripts/livedump", bin / "livedump")
    fake(bin, "python3", 'echo "beside: $*"')
    (tmp_path / "link").symlink_to(bin / "livedump")
    result = run(tmp_path / "link", "status", LIVEDUMP_PYTHON="")
    assert result.stdout == "beside: -P -m livedumpfs.cli status\n"


def test_livedump_imports_nothing_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('imported from here')\n")
    result = subprocess.run(
        [TOP / "scripts/livedump", "--version"],
        cwd=tmp_path,
        env={**os.environ, "LIVEDUMP_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


def guest(tmp_path: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    """`make` of a copy of the Linux guest, with the commands in tmp_path/bin before all others."""
    (tmp_path / "guest").mkdir(exist_ok=True)
    shutil.copy(TOP / "guest/linux/Makefile", tmp_path / "guest/Makefile")
    return run("make", "-C", tmp_path / "guest", *targets, path=tmp_path / "bin")


def test_the_guest_says_what_to_do_when_apt_knows_no_kernel(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake(tmp_path / "bin", "apt-cache", "exit 0")
    fake(tmp_path / "bin", "apt-get", f"touch {tmp_path}/called")
    result = guest(tmp_path, "build/kernel.deb")
    assert result.returncode != 0 and "as root: apt-get update" in result.stderr
    assert not (tmp_path / "called").exists()


def test_the_symbols_are_those_of_the_kernel_that_is_there(tmp_path: Path) -> None:
    """Whatever apt has now, and fetched once."""
    fakes, build = tmp_path / "bin", tmp_path / "guest/build"
    fakes.mkdir()
    build.mkdir(parents=True)
    (build / "kernel.deb").write_text("an older one")
    content = tmp_path / "content/usr/lib/debug/boot"
    content.mkdir(parents=True)
    (content / "vmlinux-6.1.0-7-amd64").write_text("symbols")
    os.utime(content / "vmlinux-6.1.0-7-amd64", (1, 1))
    fake(fakes, "apt-cache", "echo '  Depends: linux-image-6.1.0-8-amd64'")
    fake(fakes, "dpkg-deb", '[ "$3" = Version ] && echo 6.1.7-1 || echo linux-image-6.1.0-7-amd64')
    fake(fakes, "dpkg", f"tar -c -C {tmp_path}/content ./usr")
    fake(
        fakes,
        "apt-get",
        f'echo "$3" >>{tmp_path}/calls\n'
        '[ "$3" = linux-image-6.1.0-7-amd64-dbg=6.1.7-1 ] && touch "${3%%=*}_6.1.7-1_amd64.deb"',
    )
    for _ in range(2):
        result = guest(tmp_path, "symbols")
        assert result.returncode == 0, result.stderr
    assert (build / "vmlinux").read_text() == "symbols"
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    fake(fakes, "apt-get", "exit 100")
    (build / "vmlinux").unlink()
    result = guest(tmp_path, "symbols")
    assert result.returncode != 0
    assert "apt has no linux-image-6.1.0-7-amd64-dbg 6.1.7-1" in result.stderr


@pytest.mark.parametrize("closed", [".venv", "elsewhere"])
def test_livedump_says_that_its_python_is_out_of_reach(open_folder: Path, closed: str) -> None:
    """Of a user who may not enter a folder on the way; another Python lacks the packages."""
    (open_folder / "scripts").mkdir()
    shutil.copy(TOP / "scripts/livedump", open_folder / "scripts/livedump")
    (open_folder / "livedumpfs").mkdir()
    for name in ("setup.cfg", "livedumpfs/__init__.py"):
        (open_folder / name).touch()
    (open_folder / "elsewhere/bin").mkdir(parents=True)
    fake(open_folder / "elsewhere/bin", "python3", "echo ran")
    if closed == ".venv":
        (open_folder / "elsewhere").rename(open_folder / ".venv")
    else:
        (open_folder / ".venv/bin").mkdir(parents=True)
        (open_folder / ".venv/bin/python3").symlink_to(open_folder / "elsewhere/bin/python3")
    command = [*AS_NOBODY, open_folder / "scripts/livedump", "status"]
    assert run(*command, LIVEDUMP_PYTHON="").stdout == "ran\n"
    (open_folder / closed).chmod(0)
    try:
        result = run(*command, LIVEDUMP_PYTHON="")
        python = open_folder / ".venv/bin/python3"
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            f"livedump: error: this user may not run livedump's Python, {python} "
            "(open the folders on the way to it, or set LIVEDUMP_PYTHON)\n"
        )
        result = run(*command, LIVEDUMP_PYTHON=str(open_folder / closed / "python"))
        assert result.returncode == 1 and "LIVEDUMP_PYTHON is no program" in result.stderr
        assert result.stderr.count("\n") == 1
    finally:
        (open_folder / closed).chmod(0o755)


def test_livedump_without_a_python_of_its_own_takes_that_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(TOP / "scripts/livedump", tmp_path / "bin/livedump")
    (tmp_path / "path").mkdir()
    fake(tmp_path / "path", "python3", 'echo "from the path: $*"')
    result = run(tmp_path / "bin/livedump", "status", path=tmp_path / "path", LIVEDUMP_PYTHON="")
    assert result.stdout == "from the path: -P -m livedumpfs.cli status\n"
