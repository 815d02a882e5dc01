# SPDX-License-Identifier: GPL-2.0-or-later
"""What tar, rsync, cp, borg and restic make of two snapshots, one after the other at one place:
each has both, byte for byte, also those that skip what they take for unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.client import Client
from livedumpfs.formats import Plan
from tests.fixtures import forks

Host = Any
"""RunningHost of conftest.py."""
WriteDump = Callable[..., Plan]
DEADLINE = 300.0
pytestmark = pytest.mark.together  # they look at what each tool has made of two snapshots
IMAGES = ("vmcore", "mem.raw", "mem.lime")
INSTANT = 1_700_000_000 * 10**9


def run(
    *command: str | Path, good: tuple[int, ...] = (0,), cwd: Path | None = None, **environment: str
) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=cwd,
        stdin=subprocess.DEVNULL, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode in good, (command, done.stdout, done.stderr)
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    """Of what lies in a snapshot/, or in a copy of it, read from begin to end; and of when."""
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in IMAGES}
    return found | {"info.json": str(json.loads((folder / "info.json").read_text())["instant"])}


class Tool:
    """`copy(root)` once for each snapshot; `copies()`: what there is of each then."""

    needs = ""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.times = 0

    def copy(self, root: Path) -> None:
        """One snapshot: `root` is the mount."""
        self.times += 1
        self.take(root / "snapshot", self.place(self.times))

    def place(self, number: int) -> Path:
        return self.work / f"copy-{number}"

    def take(self, source: Path, place: Path) -> None:
        raise NotImplementedError

    def copies(self) -> Iterator[Path]:
        """Folders like snapshot/."""
        return (self.place(number) for number in (1, 2))


class Tar(Tool):
    options: tuple[str, ...] = ()

    def take(self, source: Path, place: Path) -> None:
        run("tar", *self.options, "-C", source, "-cf", place.with_suffix(".tar"), ".")

    def copies(self) -> Iterator[Path]:
        for place in super().copies():
            place.mkdir()
            run("tar", "-C", place, "-xf", place.with_suffix(".tar"))
            yield place


class TarSparse(Tar):
    options = ("--sparse",)


class TarRaw(Tar):
    options = ("--sparse", "--hole-detection=raw")


class TarIncremental(Tar):
    """Both into one folder, as a restore does: full, then what had changed."""

    def take(self, source: Path, place: Path) -> None:
        record = f"--listed-incremental={self.work}/record"
        run("tar", record, "-C", source, "-cf", place.with_suffix(".tar"), ".")

    def copies(self) -> Iterator[Path]:
        restored = self.work / "restored"
        restored.mkdir()
        for place in Tool.copies(self):
            archive = place.with_suffix(".tar")
            run("tar", "--listed-incremental=/dev/null", "-C", restored, "-xf", archive)
            yield restored


class Cp(Tool):
    options = ("-a", "--sparse=auto")

    def take(self, source: Path, place: Path) -> None:
        run("cp", *self.options, f"{source}/.", place)


class CpSparse(Cp):
    options = ("-a", "--sparse=always")


class CpUpdate(Cp):
    """What is newer, over what is there."""

    options = ("-a", "-u")

    def place(self, number: int) -> Path:
        return self.work / "copy"

    def copies(self) -> Iterator[Path]:
        return iter([self.place(2)])


class Rsync(Tool):
    """Over what is there; both in the end, because the first is kept in a backup folder."""

    needs = "rsync"
    options: tuple[str, ...] = ("-a",)

    def place(self, number: int) -> Path:
        return self.work / ("copy" if number == 2 else "before")

    def take(self, source: Path, place: Path) -> None:
        kept = f"--backup-dir={self.place(1)}"
        run("rsync", *self.options, "--backup", kept, f"{source}/", f"{self.place(2)}/")


class RsyncSparse(Rsync):
    options = ("-aS", "--inplace")

    def place(self, number: int) -> Path:
        return self.work / "copy"

    def take(self, source: Path, place: Path) -> None:
        run("rsync", *self.options, f"{source}/", f"{place}/")

    def copies(self) -> Iterator[Path]:
        return iter([self.place(2)])


class Borg(Tool):
    needs = "borg"

    def borg(self, *arguments: str, cwd: Path) -> None:
        done = subprocess.run(
            ["borg", *arguments], cwd=cwd, capture_output=True, text=True, timeout=DEADLINE,
            stdin=subprocess.DEVNULL, check=False,
            env={**os.environ, "BORG_BASE_DIR": str(self.work)},
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)

    def take(self, source: Path, place: Path) -> None:
        repository = str(self.work / "repository")
        if self.times == 1:
            self.borg("init", "-e", "none", repository, cwd=self.work)
        self.borg("create", "-C", "none", f"{repository}::{place.name}", ".", cwd=source)

    def copies(self) -> Iterator[Path]:
        for place in super().copies():
            place.mkdir()
            self.borg("extract", f"{self.work / 'repository'}::{place.name}", cwd=place)
            yield place


class Restic(Tool):
    needs = "restic"

    def restic(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        return run(
            "restic", "-q", "--no-cache", "-r", self.work / "repository", *arguments,
            RESTIC_PASSWORD="none", HOME=str(self.work), cwd=cwd,
        )  # fmt: skip

    def take(self, source: Path, place: Path) -> None:
        if self.times == 1:
            self.restic("init")
        # Of a link it takes the link alone.
        self.restic("backup", "--tag", place.name, ".", cwd=source)

    def copies(self) -> Iterator[Path]:
        for place in super().copies():
            self.restic("restore", "latest", "--tag", place.name, "--target", place)
            yield next(place.rglob("info.json")).parent


FOR_HOST: tuple[type[Tool], ...] = (
    Tar, TarSparse, TarRaw, TarIncremental, Cp, CpSparse, CpUpdate, Rsync, RsyncSparse, Borg,
    Restic,
)  # fmt: skip
FOR_FINISHED: tuple[type[Tool], ...] = (TarSparse, TarIncremental, Cp, CpSparse, Rsync, Borg)
CASES = [
    *(("of_a_host", kind.__name__) for kind in FOR_HOST),
    *(("of_finished_dumps", kind.__name__) for kind in FOR_FINISHED),
]


def made(work: Path, kinds: Iterable[type[Tool]]) -> dict[str, Tool]:
    """Those that are installed, each with a folder of its own."""
    tools: dict[str, Tool] = {}
    for kind in kinds:
        if not kind.needs or shutil.which(kind.needs):
            (work / kind.__name__).mkdir()
            tools[kind.__name__] = kind(work / kind.__name__)
    return tools


class Both:
    """What each tool has made of two snapshots; what these were."""

    def __init__(self, work: Path, kinds: Iterable[type[Tool]]) -> None:
        self.tools = made(work, kinds)
        self.right: list[dict[str, str]] = []
        self.failed: dict[str, AssertionError] = {}

    def copy(self, root: Path) -> None:
        self.right.append(digests(root / "snapshot"))
        for name, tool in self.tools.items():
            if name not in self.failed:
                try:
                    tool.copy(root)
                except AssertionError as error:
                    self.failed[name] = error


@pytest.fixture(scope="module")
def of_a_host(module_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Both:
    both = Both(tmp_path_factory.mktemp("host-copies"), FOR_HOST)
    with Client(module_host.device) as client:
        for _ in range(2):
            client.init(None)
            client.start()
            both.copy(module_host.mountpoint)
            client.release()
    return both


@contextmanager
def mounted(source: Path, place: Path) -> Iterator[None]:
    """`livedump mount` of a dump."""
    process = forks.start(
        [sys.executable, "-m", "livedumpfs.cli", "mount", str(source), str(place)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(place.parent)},
    )  # fmt: skip
    with ExitStack() as stack:
        stack.callback(process.communicate, timeout=DEADLINE)
        stack.callback(process.terminate)
        assert process.stdout
        assert process.stdout.readline() == f"snapshot {place}/snapshot\n"
        yield


@pytest.fixture(scope="module")
def of_finished_dumps(write_dump: WriteDump, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Two dumps in one file after the other, of the same size; a third of each is holes."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    work = tmp_path_factory.mktemp("finished-copies")
    both = Both(work, FOR_FINISHED)
    (work / "mount").mkdir()
    for number in (1, 2):
        pages = (bytes([number * (page % 3)]) * 4096 for page in range(256))
        meta = {"instant": {"wall_ns": INSTANT + number * 10**9, "mono_ns": number}}
        write_dump(work / "dump", b"".join(pages), meta=meta, force=True)
        with mounted(work / "dump", work / "mount"):
            both.copy(work / "mount")
    return both


@pytest.mark.parametrize(("source", "kind"), CASES)
def test_both_snapshots_are_in_the_copies(
    request: pytest.FixtureRequest, source: str, kind: str
) -> None:
    both: Both = request.getfixturevalue(source)
    if kind not in both.tools:
        pytest.skip(f"{kind.lower()} is not installed")
    if kind in both.failed:
        raise both.failed[kind]
    assert all(both.right[0][name] != both.right[1][name] for name in both.right[0])
    found = [digests(folder) for folder in both.tools[kind].copies()]
    # A tool that copies over what it had has only the second.
    assert found == both.right[-len(found) :]


def test_find_newer(module_host: Host, tmp_path: Path) -> None:
    """What is newer than a file that was made between two snapshots: all of the second."""
    root = module_host.mountpoint / "snapshot"
    with Client(module_host.device) as client:
        for number in (1, 2):
            client.init(None)
            client.start()
            if number == 1:
                second = os.stat(root / "mem.raw").st_mtime_ns
                (tmp_path / "mark").touch()
                # This host's snapshot may have been given a time ahead, to be in a later second.
                newest = max(second, os.stat(tmp_path / "mark").st_mtime_ns)
                os.utime(tmp_path / "mark", ns=(newest, newest))
            newer = run("find", f"{root}/", "-type", "f", "-newer", tmp_path / "mark").split()
            names = () if number == 1 else (*IMAGES, "info.json")
            assert sorted(newer) == sorted(str(root / name) for name in names)
            client.release()


def test_a_copy_of_the_whole_tree(module_host: Host, tmp_path: Path) -> None:
    """Small files are complete in each, while the machine runs: they are not empty, not cut off and
    not filled up with zeros."""
    root = module_host.mountpoint
    run("cp", "-r", root, tmp_path / "cp")
    run("rsync", "-a", "--exclude=/mem", f"{root}/", tmp_path / "rsync/")
    (tmp_path / "tar").mkdir()
    # Registers do change while tar reads them, and it ends with 1 for that.
    run("tar", "--exclude=./mem", "-C", root, "-cf", tmp_path / "t.tar", ".", good=(0, 1))
    run("tar", "-C", tmp_path / "tar", "-xf", tmp_path / "t.tar")
    for copy in ("cp", "rsync", "tar"):
        found = tmp_path / copy
        assert json.loads((found / "stats.json").read_text())["state"]
        assert len(json.loads((found / "machine/registers.json").read_text())["live"]) == 2
        registers = (found / "machine/registers").read_text()
        assert registers.count("vcpu") == 2 and registers.endswith("\n") and "\0" not in registers
        assert (found / "metrics").read_text().endswith("\n")
        for name in ("policy", "state", "type", "buffer_size"):
            assert (found / "control" / name).read_text() == (root / "control" / name).read_text()
