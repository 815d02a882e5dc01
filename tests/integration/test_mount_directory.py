# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories that a host mounts at: only what it made itself is removed at its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from livedumpfs.cli.host_command import Place, mount_directory, remove_left_behind
from livedumpfs.errors import HostError
from livedumpfs.hosts import registry
from livedumpfs.mount import mountpoint

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes rights away: needs root")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "livedumpfs"


def fails_to_mount(*arguments: str | Path) -> str:
    """Root without any capability may not mount."""
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all",
         sys.executable, "-m", "livedumpfs.cli", *arguments],
        capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return done.stderr.strip().splitlines()[-1]


@needs_root
@pytest.mark.parametrize("kind", ["host", "qemu", "mount"])
def test_a_directory_of_the_users_stays_when_it_cannot_be_mounted(
    kind: str, tmp_path: Path, write_dump: object
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o750)
    before = mine.stat()
    if kind == "host":
        said = fails_to_mount("host", "--ram", "16M", "--mount", mine)
    elif kind == "mount":
        write_dump(tmp_path / "dump", bytes(4096))  # type: ignore[operator]
        said = fails_to_mount("mount", tmp_path / "dump", mine)
    else:
        if shutil.which("qemu-system-x86_64") is None:
            pytest.skip("QEMU is not installed")
        qemu = ("qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-m", "64M")
        said = fails_to_mount("qemu", "--mount", mine, "--", *qemu)
    assert said.startswith(f"livedump: error: cannot mount at {mine} (root without CAP_SYS_ADMIN")
    after = mine.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@needs_root
def test_a_directory_of_our_own_goes_when_it_cannot_be_mounted(runtime: Path) -> None:
    assert f"cannot mount at {runtime}/host-" in fails_to_mount("host", "--ram", "16M")
    assert list(runtime.iterdir()) == []


def test_what_took_the_place_of_our_directory_stays(runtime: Path) -> None:
    with mount_directory(None) as place:
        assert Path(place.path).parent == runtime
        os.rename(place.path, runtime / "moved")
        os.mkdir(place.path)
    assert Path(place.path).is_dir()
    with pytest.raises(HostError, match=f"cannot make {place.path}: File exists"):
        Place.make(Path(place.path))
    Place(place.path).remove()
    assert Path(place.path).is_dir()


def test_one_of_ours_goes_once(runtime: Path) -> None:
    with mount_directory(None) as place:
        assert os.listdir(runtime) == [os.path.basename(place.path)]
        place.remove()
        os.mkdir(place.path)
    assert os.listdir(place.path) == []


@needs_root
def test_what_dead_hosts_of_this_user_left_goes(runtime: Path) -> None:
    runtime.mkdir()
    names = ("host-4194305", "host-4194306", "host-x", "mine")  # above the largest pid
    for name in names:
        (runtime / name).mkdir()
    os.chown(runtime / "host-4194306", 7, 7)
    (runtime / "host-1").mkdir()
    remove_left_behind(runtime)
    assert sorted(os.listdir(runtime)) == ["host-1", "host-4194306", "host-x", "mine"]


def test_no_place_for_it_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise PermissionError(13, "Permission denied", "/run/livedumpfs")

    monkeypatch.setattr(registry, "own_directory", refuse)
    with (
        pytest.raises(
            HostError, match=r"cannot make /run/livedumpfs: permission denied .*with mount"
        ),
        mount_directory(None),
    ):
        pass


@needs_root
def test_what_is_mounted_over_ours_is_not_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "mounts_at", lambda place: [mountpoint.OURS, "tmpfs"])
    assert not mountpoint.is_mounted(str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("it was unmounted"))
    with pytest.raises(HostError, match="tmpfs is mounted over it"):
        mountpoint.unmount(str(tmp_path))
